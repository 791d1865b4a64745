"""Fits per second and errors of perfuse and its peers, on the same curves in the same run. See README.md here."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import nibabel
import numpy as np
from scipy.optimize import curve_fit

PARKER = dict(a=(0.809, 0.330), t=(0.17046, 0.365), sigma=(0.0563, 0.132), alpha=1.050, beta=0.1685, s=38.078, tau=0.483)


def parker_blood_mm(minutes):
    """Population input function of Parker et al. 2006, whole blood, mM."""
    p = PARKER
    value = p["alpha"] * np.exp(-p["beta"] * minutes) / (1 + np.exp(-p["s"] * (minutes - p["tau"])))
    for a, t, sigma in zip(p["a"], p["t"], p["sigma"]):
        value += a / (sigma * np.sqrt(2 * np.pi)) * np.exp(-((minutes - t) ** 2) / (2 * sigma**2))
    return np.where(minutes < 0, 0.0, value)


def convolved(rate, dt, plasma):
    """plasma (*) exp(-rate t), exact for a piecewise-linear curve; one row per rate (1/s)."""
    x = (rate * dt)[:, None]
    decay = np.exp(-x)
    mean = np.where(x > 1e-6, -np.expm1(-x) / np.where(x == 0, 1, x), 1 - x / 2)
    newer = dt * np.where(x > 1e-4, (1 - mean) / np.where(x == 0, 1, x), 0.5 - x / 6)
    older = dt * mean - newer
    out = np.zeros((rate.size, plasma.size))
    for i in range(1, plasma.size):
        out[:, i : i + 1] = decay * out[:, i - 1 : i] + older * plasma[i - 1] + newer * plasma[i]
    return out


def extended_tofts(truth, dt, plasma):
    ktrans = truth["ktrans"] / 60
    return ktrans[:, None] * convolved(ktrans / truth["ve"], dt, plasma) + truth["vp"][:, None] * plasma


def exchange_terms(truth):
    """Rates (1/s) and amplitudes (1/s) of the two exponentials of the exchange model."""
    flow, surface = truth["fp"] / 6000, truth["ps"] / 6000
    a = (flow + surface) / truth["vp"]
    d = surface / truth["ve"]
    b = flow * surface / (truth["vp"] * truth["ve"])
    root = np.sqrt((a + d) ** 2 - 4 * b)
    fast, slow = (a + d + root) / 2, (a + d - root) / 2
    share = (fast - d - surface / truth["vp"]) / root
    return fast, slow, flow * share, flow * (1 - share)


def two_compartment_exchange(truth, dt, plasma):
    fast, slow, a, b = exchange_terms(truth)
    return a[:, None] * convolved(fast, dt, plasma) + b[:, None] * convolved(slow, dt, plasma)


MODELS = {
    "extended_tofts": dict(
        forward=extended_tofts,
        ranges=dict(ktrans=(0.02, 0.4), ve=(0.1, 0.5), vp=(0.01, 0.1)),
        bounds=dict(ktrans=(0, 5), ve=(1e-4, 1), vp=(0, 1)),
        start=dict(ktrans=0.1, ve=0.2, vp=0.02),
        osipy=("extended_tofts", dict(ktrans="Ktrans", ve="ve", vp="vp")),
    ),
    "two_compartment_exchange": dict(
        forward=two_compartment_exchange,
        ranges=dict(fp=(10, 100), ps=(2, 30), ve=(0.1, 0.4), vp=(0.02, 0.15)),
        bounds=dict(fp=(0.1, 200), ps=(0.01, 500), ve=(1e-3, 1), vp=(1e-3, 1)),
        start=dict(fp=30, ps=8, ve=0.2, vp=0.05),
        osipy=("2cxm", dict(fp="Fp", ps="PS", ve="ve", vp="vp")),
    ),
}


def errors(truth, found):
    """Median relative error of each parameter, in per cent."""
    return {
        name: 100 * float(np.nanmedian(np.abs(found[name] - value[: found[name].size]) / value[: found[name].size]))
        for name, value in truth.items()
    }


def fit_perfuse(program, model, curves, times, plasma, names, device):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        side = int(np.ceil(curves.shape[0] ** 0.5))
        padded = np.zeros((side * side, curves.shape[1]), np.float32)
        padded[: curves.shape[0]] = curves
        image = nibabel.Nifti1Image(padded.reshape(side, side, 1, -1, order="F"), np.eye(4))
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = times[1] - times[0]
        nibabel.save(image, folder / "curves.nii")
        rows = "\n".join(f"{t:.9g},{c:.9g}" for t, c in zip(times, plasma))
        (folder / "aif.csv").write_text(f"time_s,concentration_mM\n{rows}\n")
        command = [program, folder / "curves.nii", "--model", model, "--kind", "concentration", "--aif", folder / "aif.csv"]
        command += ["--aif-in", "plasma", "--device", device, "--pictures", "none", "--quiet", "--out", folder / "maps"]
        begin = time.perf_counter()
        subprocess.run([str(word) for word in command], check=True)
        whole = time.perf_counter() - begin
        record = json.loads((folder / "maps" / "run.json").read_text())
        kernel = sum(s["seconds"] for s in record["stages"] if s["stage"].endswith("kernel"))
        found = {}
        for name in names:
            values = nibabel.load(folder / "maps" / f"{name}.nii.gz").get_fdata()
            found[name] = values.ravel(order="F")[: curves.shape[0]]
        return found, kernel, whole, record["device"]


def fit_osipy(model, curves, times, plasma):
    from osipy.dce.fitting import fit_model

    name, keys = MODELS[model]["osipy"]
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fit_model(name, curves.reshape(-1, 1, 1, curves.shape[1]), plasma, times)
    seconds = time.perf_counter() - begin
    return {key: result.parameter_maps[theirs].values.ravel() for key, theirs in keys.items()}, seconds


def dcmri_curve(model, times, plasma):
    """dcmri's own forward model as a function of our parameters."""
    import dcmri

    if model == "extended_tofts":
        return lambda ktrans, ve, vp: dcmri.conc_tissue(plasma, t=times, kinetics="HF", H=0.0, vb=vp, vi=ve, PS=ktrans / 60)
    return lambda fp, ps, ve, vp: dcmri.conc_tissue(
        plasma, t=times, kinetics="2CX", H=0.0, vb=vp, vi=ve, Fb=fp / 6000, PS=ps / 6000
    )


def fit_one_by_one(curve, model, curves):
    """SciPy's bounded curve_fit, one curve after the other."""
    setup = MODELS[model]
    names = list(setup["start"])
    low = [setup["bounds"][n][0] for n in names]
    high = [setup["bounds"][n][1] for n in names]
    start = [setup["start"][n] for n in names]
    found = {name: np.full(curves.shape[0], np.nan) for name in names}
    begin = time.perf_counter()
    for i, measured in enumerate(curves):
        try:
            best, _ = curve_fit(lambda _, *p: curve(*p), None, measured, p0=start, bounds=(low, high))
        except (RuntimeError, ValueError):
            continue
        for name, value in zip(names, best):
            found[name][i] = value
    return found, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default="target/release/examples/dce_fit", help="perfuse's dce_fit")
    parser.add_argument("--device", default="cpu", help="perfuse's device")
    parser.add_argument("--curves", type=int, default=1_000_000, help="curves for perfuse")
    parser.add_argument("--osipy-curves", type=int, default=20_000)
    parser.add_argument("--single-curves", type=int, default=400, help="curves for one-by-one fits")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--spacing", type=float, default=5.0, help="seconds between frames")
    parser.add_argument("--noise", type=float, default=0.02, help="standard deviation, mM")
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()

    random = np.random.default_rng(1)
    times = arguments.spacing * np.arange(arguments.frames)
    plasma = parker_blood_mm((times - 30) / 60) / (1 - 0.42)
    table = []
    for model in MODELS if arguments.model == "all" else [arguments.model]:
        setup = MODELS[model]
        truth = {name: random.uniform(*limits, arguments.curves) for name, limits in setup["ranges"].items()}
        curves = np.empty((arguments.curves, arguments.frames), np.float32)
        for part in np.array_split(np.arange(arguments.curves), max(1, arguments.curves // 50_000)):
            curves[part] = setup["forward"]({n: v[part] for n, v in truth.items()}, arguments.spacing, plasma)
        curves += random.normal(0, arguments.noise, curves.shape).astype(np.float32)

        found, kernel, whole, device = fit_perfuse(
            arguments.program, model, curves, times, plasma, list(truth), arguments.device
        )
        mine = arguments.curves / kernel
        rows = [(f"perfuse, {device}", arguments.curves, mine, errors(truth, found), arguments.curves / whole)]

        def peer(name, count, fit):
            try:
                result, seconds = fit(curves[:count].astype(float))
            except ImportError as missing:
                print(f"{name}: left out, {missing}", file=sys.stderr)
                return
            rows.append((name, count, count / seconds, errors(truth, result), None))

        def plain(**p):
            return setup["forward"]({n: np.array([v]) for n, v in p.items()}, arguments.spacing, plasma)[0]

        names = list(setup["start"])
        peer("osipy", arguments.osipy_curves, lambda c: fit_osipy(model, c, times, plasma))
        peer(
            "dcmri + scipy curve_fit",
            arguments.single_curves,
            lambda c: fit_one_by_one(dcmri_curve(model, times, plasma), model, c),
        )
        peer(
            "scipy curve_fit",
            arguments.single_curves,
            lambda c: fit_one_by_one(lambda *p: plain(**dict(zip(names, p))), model, c),
        )
        print(f"\n{model}, {arguments.frames} frames of {arguments.spacing:g} s, noise {arguments.noise:g} mM")
        print(f"{'':<34}{'curves':>10}{'fits/s':>14}{'perfuse is':>12}  median error, %")
        for name, count, rate, error, process in rows:
            listed = "  ".join(f"{key} {value:.2f}" for key, value in error.items())
            print(f"{name:<34}{count:>10}{rate:>14,.0f}{mine / rate:>10,.0f} x  {listed}")
            table.append(dict(model=model, software=name, curves=count, fits_per_second=rate, median_error_percent=error))
            if process is not None:
                print(f"{'  as a process, reading and writing':<34}{'':>10}{process:>14,.0f}")
                table[-1]["fits_per_second_as_process"] = process
    if arguments.json:
        arguments.json.write_text(json.dumps(dict(frames=arguments.frames, spacing_s=arguments.spacing,
                                                  noise_mm=arguments.noise, rows=table), indent=2) + "\n")


if __name__ == "__main__":
    main()
