"""Peak memory against the size of the data: a walk through the source, and a whole fit, at N and at N / 10 records.

    python benchmarks/memory.py --table 10000000 --pictures 100000
    python benchmarks/memory.py --table 0 --pictures 0 --texts 20000      # 20 GB, and three times that on the disk

Texts are the plays of Shakespeare again and again; a fit of them is one of bytes that sees 640 windows of 256, so that what
grows with them is reading and cutting them. Each measurement is a process of its own. A line of JSON a case goes to
benchmarks/results/memory.jsonl with the date, the commit and the hardware; `growth` is the peak at N over the peak at N / 10,
which should stay under 1.5.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
COLUMNS = 6
CHUNK = 100_000
SIDE = 28
ENDING = {"table": ".csv", "pictures": "", "texts": ".txt"}


def table(path: Path, records: int) -> None:
    """A CSV of `records` rows: five numbers in two clusters and a word."""
    generator = np.random.default_rng(0)
    with path.open("w") as file:
        file.write(",".join(f"x{i}" for i in range(COLUMNS - 1)) + ",kind\n")
        for first in range(0, records, CHUNK):
            count = min(CHUNK, records - first)
            kind = generator.integers(0, 2, count)
            rows = generator.normal(size=(count, COLUMNS - 1)) + 3.0 * kind[:, None]
            words = np.array(["red", "blue"])[kind]
            file.writelines(f"{','.join(f'{v:.5f}' for v in row)},{word}\n" for row, word in zip(rows, words, strict=True))


def pictures(path: Path, records: int) -> None:
    """A folder of `records` grey PNG files in ten sub-folders."""
    generator = np.random.default_rng(0)
    for label in range(10):
        (path / str(label)).mkdir(parents=True)
    for number in range(records):
        pixels = generator.integers(0, 256, (SIDE, SIDE), np.uint8)
        Image.fromarray(pixels).save(path / str(number % 10) / f"{number:06}.png", compress_level=1)


def texts(path: Path, megabytes: int) -> None:
    """So many million bytes of documents."""
    from real import plays
    whole = b"".join(plays().values())
    with path.open("wb") as file:
        while file.tell() < megabytes * 10**6:
            file.write(whole)


def walk(path: str) -> int:
    """Reads every record of the source once."""
    from verossim.data import open_source
    return sum(len(block) for block in open_source(path).blocks())


def fit(path: str) -> int:
    """A mixture of four diagonal Gaussians, fitted to the source; of texts a small network that sees a few windows."""
    import verossim
    if path.endswith(".txt"):
        model = verossim.fit(path, family="autoregressive", tokens="bytes", context=256, width=32, blocks=2, samples=640)
        return model.card["manifest"]["records"]
    model = verossim.fit(path, family="gmm", components=4, covariance="diag")
    return model.card["manifest"]["records"]


def measured(job: str, path: Path) -> dict[str, float]:
    """Runs a job in a process of its own: records, seconds, peak resident MiB."""
    out = subprocess.run([sys.executable, __file__, "--job", job, str(path)], check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def hardware() -> dict[str, object]:
    """What the figures were taken on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {"date": datetime.date.today().isoformat(), "commit": commit, "cpu": models[0] if models else platform.machine(),
            "cores": os.cpu_count(), "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)}


def main() -> None:
    """Makes the data, measures each job at N and N / 10, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, default=1_000_000, help="rows of the CSV; 0 for none")
    parser.add_argument("--pictures", type=int, default=10_000, help="pictures of the folder; 0 for none")
    parser.add_argument("--texts", type=int, default=0, help="million bytes of texts; 0 for none")
    parser.add_argument("--only", choices=("walk", "fit"), help="one job instead of both")
    parser.add_argument("--job", nargs=2, metavar=("JOB", "PATH"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        start = time.perf_counter()
        records = {"walk": walk, "fit": fit}[asked.job[0]](asked.job[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"records": records, "seconds": round(time.perf_counter() - start, 2), "peak_mib": round(peak, 1)}))
        return
    cases = ("table", table, asked.table), ("pictures", pictures, asked.pictures), ("texts", texts, asked.texts)
    for name, make, records in cases:
        for job in [asked.only] if asked.only else ["walk", "fit"]:
            if not records:
                continue
            results = []
            for count in (records // 10, records):
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / (name + ENDING[name])
                    make(path, count)
                    results.append(measured(job, path))
            line = {"case": f"{job} {name}", "tenth": results[0], "whole": results[1],
                    "growth": round(results[1]["peak_mib"] / results[0]["peak_mib"], 3), **hardware()}
            print(json.dumps(line), flush=True)
            (HERE / "results").mkdir(exist_ok=True)
            with (HERE / "results" / "memory.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
