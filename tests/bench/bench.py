#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
scripts/bench [WORKLOAD...] measures everyday jobs (everyday.py); scripts/bench writes measures writing beside
rclone, davfs2, s3fs and sshfs (writes.py), scripts/bench reads measures listing and reading (reads.py),
scripts/bench peers both; scripts/bench answers and scripts/bench throttle measure how soon a busy drive
answers (answers.py, throttle.py), scripts/bench scale measures many attachments (scale.py, growth.py). --save
keeps the results of a commit, --compare shows those of two (saved.py). Results go to standard output, progress
to standard error; the exit status is 1 when a result of ours did not check out.
"""

import argparse
import signal
import sys

from common import into_readme  # first: it says where the harness is

import answers
import calls
import everyday
import link
import reads
import saved
import scale
import throttle
import writes


BESIDE = {"writes": writes, "reads": reads}
ALONE = {"answers": answers, "throttle": throttle, "link": link, "calls": calls}


def main() -> int:
    known = [*everyday.WORKLOADS, "peers", *BESIDE, *ALONE, "scale"]
    told = "; ".join(f"of {n}: {', '.join(m.WORKLOADS)}" for n, m in BESIDE.items())
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(known))
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md, too")
    parser.add_argument("--latency-ms", type=int, help="default: 20; of writes and reads: 0 and 20")
    parser.add_argument("--save", action="store_true", help="keep the results of this commit")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="commits, or files kept")
    group = parser.add_argument_group("peers, writes, reads")
    group.add_argument("--runs", type=int, default=5, help="rounds of all contenders; default: 5")
    group.add_argument("--limit", type=float, default=22, help="seconds for a result; default: 22")
    group.add_argument(
        "--minutes",
        type=float,
        default=45,
        help="of reads, and of writes: what is left then is done once; default: %(default)s",
    )
    group.add_argument("--no-peers", action="store_true", help="without the other filesystems")
    group.add_argument("--only", default="", metavar="A,B", help=told)
    parser.add_argument(
        "--sizes",
        default=",".join(map(str, scale.SIZES)),
        metavar="N,N",
        help="scale: how many attachments; default: %(default)s, a million takes minutes",
    )
    arguments = parser.parse_args()
    if arguments.compare:
        print(saved.compare(*arguments.compare), end="")
        return 0
    unknown = set(arguments.workloads) - set(known)
    if unknown:
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if "peers" in arguments.workloads:
        arguments.workloads = [w for w in arguments.workloads if w != "peers"] + list(BESIDE)
    jobs = [name for name in arguments.workloads if name in everyday.WORKLOADS]
    # what was started and mounted is ended and unmounted on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed, kept = 0, {}
    if jobs or not arguments.workloads:
        latency = 20 if arguments.latency_ms is None else arguments.latency_ms
        failed = everyday.measure(jobs, latency)
        print(everyday.table(latency), end="")
        kept["everyday"] = everyday.kept(latency)
        if arguments.readme and not failed:
            into_readme("scripts/bench", everyday.table(latency))
    for name, module in BESIDE.items():
        if name not in arguments.workloads:
            continue
        bench = module.Bench(
            latencies=[0, 20] if arguments.latency_ms is None else [arguments.latency_ms],
            runs=arguments.runs,
            limit=arguments.limit,
            peers=not arguments.no_peers,
            minutes=arguments.minutes,
            only=[w for w in arguments.only.split(",") if w],
        )
        failed += bench.measure()
        print(bench.text(), end="")
        kept[name] = bench.kept()
        if arguments.readme and not failed:
            into_readme(f"scripts/bench {name}", bench.text())
    for name, module in ALONE.items():
        if name not in arguments.workloads:
            continue
        bench = module.Bench()
        failed += bench.measure()
        print(bench.text(), end="")
        kept[name] = bench.kept()
        if arguments.readme and not failed:
            into_readme(f"scripts/bench {name}", bench.text())
    if "scale" in arguments.workloads:
        text = scale.measure([int(n) for n in arguments.sizes.split(",")])
        print(text, end="")
        if arguments.readme:
            into_readme("scripts/bench scale", text)
    if arguments.save:
        print(f"kept in {saved.save(kept)}", file=sys.stderr)
    if failed:
        print(f"\n{failed} results failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
