"""A series file to three semi-quantitative maps on disk: perfuse, and nibabel + numpy. See README.md here."""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

MAPS = ["peak_time", "max_slope", "auc"]


def times_of(path, image):
    """Seconds of every frame, from the sidecar that perfuse writes, else even ones from the header."""
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    if sidecar.exists():
        listed = json.loads(sidecar.read_text()).get("VolumeTiming")
        if listed:
            return np.asarray(listed, float)
    return image.header["pixdim"][4] * np.arange(image.shape[3])


def describe(signal, times, baseline, onset):
    """Three maps of float32 curves, time along the last axis, without a loop over voxels.

    peak_time: time of the largest enhancement after the baseline. max_slope: largest slope over three samples between the
    last baseline frame and the peak. auc: integral of the enhancement from the onset, a frame's time, to the end.
    """
    enhancement = signal - signal[..., :baseline].mean(axis=-1, keepdims=True)
    peak = baseline + enhancement[..., baseline:].argmax(axis=-1)
    # Least squares over three evenly spaced samples is the central difference.
    slope = (enhancement[..., baseline + 1 :] - enhancement[..., baseline - 1 : -2]) / np.float32(times[2] - times[0])
    after = np.arange(baseline + 1, times.size) > peak[..., None]
    slope = np.where(after, -np.inf, slope).max(axis=-1)
    slope[~np.isfinite(slope)] = np.nan
    start = int(np.searchsorted(times, onset))
    area = np.trapezoid(enhancement[..., start:], times[start:].astype(np.float32), axis=-1)
    return times[peak].astype(np.float32), slope.astype(np.float32), area.astype(np.float32)


def save(folder, maps, affine, ending):
    for name, values in zip(MAPS, maps):
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{name}{ending}")


def whole(path, folder, ending, baseline, onset):
    """The whole series as float32, then everything at once: what most scripts do."""
    image = nibabel.load(path)
    signal = image.get_fdata(dtype=np.float32)
    begin = time.perf_counter()
    maps = describe(signal, times_of(path, image), baseline, onset)
    seconds = time.perf_counter() - begin
    save(folder, maps, image.affine, ending)
    return seconds


def by_slice(path, folder, ending, baseline, onset):
    """The stored integers once, one slice after the other as float32: what a careful script does."""
    image = nibabel.load(path)
    stored = np.asanyarray(image.dataobj.get_unscaled())
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    times = times_of(path, image)
    maps = [np.empty(stored.shape[:3], np.float32) for _ in MAPS]
    seconds = 0.0
    for z in range(stored.shape[2]):
        begin = time.perf_counter()
        signal = np.ascontiguousarray(stored[:, :, z, :]).astype(np.float32)
        if (slope, intercept) != (1, 0):
            signal = signal * np.float32(slope) + np.float32(intercept)
        for all_slices, one in zip(maps, describe(signal, times, baseline, onset)):
            all_slices[:, :, z] = one
        seconds += time.perf_counter() - begin
    save(folder, maps, image.affine, ending)
    return seconds


WAYS = dict(whole=whole, by_slice=by_slice)


def child(arguments):
    """One way in a process of its own, so that its peak memory is its own."""
    seconds = WAYS[arguments.way](arguments.series, arguments.out, arguments.ending, arguments.baseline, arguments.onset)
    print(json.dumps(dict(compute=seconds)))


# Runs a command and measures it. A process of its own, because a system counts what its parent holds as the peak memory of
# a process that is about to become another program.
MEASURE = """
import json, os, subprocess, sys, time
begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
text = process.stdout.read()
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - begin
print(json.dumps([status, seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), text]))
"""


def timed(command):
    """Wall seconds, peak memory in bytes (the process's own), and what it printed."""
    command = [str(word) for word in command]
    measured = subprocess.run([sys.executable, "-S", "-c", MEASURE, *command], stdout=subprocess.PIPE, text=True, check=True)
    status, seconds, peak, text = json.loads(measured.stdout)
    if status:
        sys.exit(f"{command[0]} failed")
    return seconds, peak, text


def perfuse(program, path, folder, ending, baseline, onset, device):
    command = [program, path, "--out", folder, "--maps", ",".join(MAPS), "--baseline", baseline, "--onset", onset]
    command += ["--device", device, "--pictures", "none", "--quiet", "--force"]
    if ending == ".nii":
        command.append("--uncompressed")
    wall, peak, _ = timed(command)
    record = json.loads((folder / "run.json").read_text())
    stages = {stage["stage"]: stage["seconds"] for stage in record["stages"]}
    compute = sum(seconds for stage, seconds in stages.items() if stage.split()[0] not in ("read", "write"))
    return wall, peak, compute, record["device"]


def agreement(mine, theirs, ending):
    """Share of voxels with a value in both, and how far they are apart there."""
    report = {}
    for name in MAPS:
        a = nibabel.load(mine / f"{name}{ending}").get_fdata(dtype=np.float32)
        b = nibabel.load(theirs / f"{name}{ending}").get_fdata(dtype=np.float32)
        both = np.isfinite(a) & np.isfinite(b)
        spread = float(np.median(np.abs(b[both]))) or 1.0
        difference = np.abs(a[both] - b[both]) / np.maximum(np.abs(b[both]), spread)
        report[name] = dict(
            voxels=int(both.sum()), perfuse_alone=int((np.isfinite(a) & ~np.isfinite(b)).sum()),
            median=float(np.median(difference)), largest=float(difference.max()),
            beyond_1e_4=float((difference > 1e-4).mean()),
        )
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path, help="a 4D .nii or .nii.gz")
    parser.add_argument("--program", default="target/release/examples/perfusion_maps", help="perfuse's perfusion_maps")
    parser.add_argument("--device", default="cpu", help="perfuse's device")
    parser.add_argument("--baseline", type=int, default=6, help="frames before contrast")
    parser.add_argument("--runs", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ending", help=argparse.SUPPRESS)
    parser.add_argument("--onset", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        return child(arguments)

    image = nibabel.load(arguments.series)
    times = times_of(arguments.series, image)
    onset = float(times[arguments.baseline - 1])
    table = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        packed, plain = folder / "series.nii.gz", folder / "series.nii"
        for target in (packed, plain):
            if arguments.series.name.endswith(".gz") == target.name.endswith(".gz"):
                target.symlink_to(arguments.series.resolve())
            else:
                stored = np.asanyarray(image.dataobj.get_unscaled())
                nibabel.save(nibabel.Nifti1Image(stored, image.affine, image.header), target)
        (folder / "series.json").write_text(json.dumps(dict(VolumeTiming=times.tolist())))
        for path in (packed, plain):
            ending = "".join(path.suffixes)
            rows, device = {}, ""
            mine = folder / f"perfuse{ending}"
            for name in ["perfuse", *WAYS]:
                best = None
                for _ in range(arguments.runs):
                    if name == "perfuse":
                        wall, peak, compute, device = perfuse(
                            arguments.program, path, mine, ending, arguments.baseline, onset - times[0], arguments.device
                        )
                    else:
                        out = folder / f"{name}{ending}"
                        out.mkdir(exist_ok=True)
                        command = [sys.executable, __file__, path, "--way", name, "--out", out, "--ending", ending]
                        command += ["--baseline", arguments.baseline, "--onset", onset]
                        wall, peak, text = timed(command)
                        compute = json.loads(text)["compute"]
                    if best is None or wall < best["seconds"]:
                        best = dict(seconds=wall, compute_seconds=compute, peak_memory_bytes=peak)
                if name != "perfuse":
                    best["agreement"] = agreement(mine, folder / f"{name}{ending}", ending)
                rows[name] = best
            print(f"\n{ending} to {', '.join(MAPS)}; {image.shape}, {image.get_data_dtype()}; perfuse on {device}")
            print(f"{'':<22}{'seconds':>9}{'perfuse is':>12}{'compute':>10}{'perfuse is':>12}{'peak MB':>9}{'of it':>8}")
            titles = dict(perfuse="perfuse", whole="numpy, whole", by_slice="numpy, slice by slice")
            for name, row in rows.items():
                mine_row = rows["perfuse"]
                line = f"{titles[name]:<22}{row['seconds']:>9.3f}{row['seconds'] / mine_row['seconds']:>10.1f} x"
                line += f"{row['compute_seconds']:>10.3f}{row['compute_seconds'] / mine_row['compute_seconds']:>10.1f} x"
                line += f"{row['peak_memory_bytes'] / 1e6:>9.0f}"
                print(line + f"{100 * mine_row['peak_memory_bytes'] / row['peak_memory_bytes']:>6.0f} %")
                table.append(dict(file=ending, software=name, **row))
            for name in WAYS:
                for quantity, found in rows[name]["agreement"].items():
                    print(
                        f"  {titles[name]}, {quantity}: {found['voxels']} voxels in both, relative difference "
                        f"{found['median']:.1e} median, {found['largest']:.1e} at most, "
                        f"{100 * found['beyond_1e_4']:.3f} % beyond 1e-4"
                    )
    for package, what in (("osipy", "fits and deconvolves"), ("mitk", "reads images in Python")):
        if importlib.util.find_spec(package) is None:
            print(f"{package}: not installed, left out", file=sys.stderr)
        else:
            print(f"{package}: {what}, and offers none of these maps there", file=sys.stderr)
    if arguments.json:
        shape = list(image.shape)
        arguments.json.write_text(json.dumps(dict(shape=shape, maps=MAPS, rows=table), indent=2) + "\n")


if __name__ == "__main__":
    main()
