#!/usr/bin/env bash
# Runs all tests. Installs software Vulkan where no Vulkan driver is there, and says so.
#
#   bash tests/run.sh                  everything that this machine can run
#   PERFUSE_REQUIRE_GPU=1              a missing device is a failure, not an ignored test
#   PERFUSE_TEST_DEVICE=NAME           the device to test: a part of its name or driver, or gpu for the best one
#   PERFUSE_TEST_DATA=FOLDER           the published data (docs/testing.md says where they come from)
set -euo pipefail
cd "$(dirname "$0")/.."

have_vulkan() {
    local libraries
    libraries="$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null || true)"
    case "$libraries" in
        *libvulkan.so.1*) ;;
        *) return 1 ;;
    esac
    compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null ||
        [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]
}

if [ "$(uname -s)" = Linux ] && ! have_vulkan; then
    if command -v apt-get >/dev/null; then
        echo "No Vulkan driver: installing Mesa's software one (mesa-vulkan-drivers, libvulkan1)."
        as_root=""
        [ "$(id -u)" -eq 0 ] || as_root="sudo"
        if $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends \
            mesa-vulkan-drivers libvulkan1 >/dev/null; then
            echo "Installed."
        elif [ "${PERFUSE_REQUIRE_GPU:-0}" = 1 ]; then
            echo "That failed, and PERFUSE_REQUIRE_GPU=1 asks for a device." >&2
            exit 1
        else
            echo "That failed: tests that need a device will be reported as ignored." >&2
        fi
    else
        echo "No Vulkan driver here: tests that need a device will be reported as ignored." >&2
    fi
fi

# Where a device is required, the shared test bodies run on it too, beside the CPU engine.
if [ "${PERFUSE_REQUIRE_GPU:-0}" = 1 ]; then
    export PERFUSE_TEST_DEVICE="${PERFUSE_TEST_DEVICE:-gpu}"
fi

# Mesa's drivers complain of every device without one.
if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    XDG_RUNTIME_DIR="$(mktemp -d)"
    export XDG_RUNTIME_DIR
    trap 'rmdir "$XDG_RUNTIME_DIR" 2>/dev/null || true' EXIT
fi

cargo test --all-features "$@"
