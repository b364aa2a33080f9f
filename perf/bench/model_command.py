"""perf/model fit|predict: fits the cost model to measurements, which it takes from files of perf/reproduce and makes itself where
they lack some, and tells an operator what a load costs. Exit status: 2 where there is no ground for an answer."""

import argparse
import glob
import json
import os
import sys

import machine
import model
import study
from contestants import PERF
from model import DIGESTS, Load, Model, ModelError, Refused
from model_report import Fit, cpu_of
from model_runs import RATES, Measuring, wanted


def rates(text):
    found = sorted(float(each) for each in text.split(","))
    if not found or found[0] <= 0:
        raise argparse.ArgumentTypeError("rates are numbers above 0")
    return found


def fit_parser():
    parser = study.options("perf/model fit", "Measures what the cost model wants, and fits it.")
    parser.add_argument(
        "--from",
        dest="files",
        metavar="FILE.json",
        action="append",
        default=[],
        help="take the runs of this JSON of perf/reproduce (modes, registrar), and measure what is missing; may be repeated",
    )
    parser.add_argument(
        "--no-measure",
        action="store_true",
        help="with --from: measure nothing; the model has then no component that the files lack",
    )
    parser.add_argument(
        "--peaks", action=argparse.BooleanOptionalAction, help="search for the peak of each configuration too [yes; quick: no]"
    )
    parser.add_argument(
        "--rates",
        type=rates,
        default=RATES,
        help="calls and registrations a second at which waking is measured [200,1000,4000,16000]",
    )
    parser.add_argument("--tls-version", choices=["1.2", "1.3"], default="1.2")
    parser.add_argument("--key", choices=["rsa", "ec"], default="rsa")
    parser.add_argument(
        "--suite", choices=["study", "today"], default="study", help="TLS 1.2: the report's AES128-SHA, or what is negotiated today"
    )
    parser.add_argument(
        "--connections", type=int, help="beside so many open connections a call has been seen to cost the same [from row I1]"
    )
    parser.add_argument("--write", metavar="FILE.json", help="write the model here too, without its measurements")
    return parser


def read_sources(files):
    """The runs of all files, the machine's line and the settings; all must be of one machine."""
    results, machines, settings = [], [], []
    for path in files:
        with open(path) as text:
            found = json.load(text)
        results += found["measurements"]
        machines.append(found["machine"])
        settings.append(f"{os.path.basename(path)}: {found.get('settings', 'settings unknown')}")
    if len(set(machines)) > 1:
        raise ModelError("the files are of different machines: " + "; ".join(sorted(set(machines))))
    return results, machines[0] if machines else None, " ".join(settings)


def fit_command():
    parser = fit_parser()
    arguments = parser.parse_args()
    if arguments.peaks is None:
        arguments.peaks = not arguments.quick
    try:
        sources, text, settings = read_sources(arguments.files)
        if arguments.no_measure and not arguments.files:
            parser.error("--no-measure without --from leaves nothing to fit")
        if not wanted(arguments, sources):
            Fit(arguments, sources, text, settings).run()
            return
        if text is not None and text != machine.describe():
            raise ModelError(
                f"the files are of another machine ({text}), and some runs are missing: --no-measure fits what there is"
            )

        def measuring(again, directory):
            again.peaks = arguments.peaks
            found = Measuring(again, directory, sources, lambda *all_of_it: Fit(again, *all_of_it).run())
            found.report.settings += settings and f"; {settings}"
            return found

        study.run(parser, measuring)
    except ModelError as why:
        sys.exit(f"perf/model fit: {why}")


def predict_parser():
    parser = argparse.ArgumentParser(
        prog="perf/model predict", description="What a load costs: how much of a core, how many cores, which component dominates."
    )
    parser.add_argument("--calls", type=float, default=0, help="calls a second")
    parser.add_argument("--registrations", type=float, default=0, help="registrations a second")
    parser.add_argument("--transport", choices=model.TRANSPORTS, default="udp", help="of both sides [udp]")
    parser.add_argument("--left", choices=model.TRANSPORTS, help="the callers' side, if another")
    parser.add_argument("--right", choices=model.TRANSPORTS, help="the answerers' side, if another")
    parser.add_argument(
        "--mode",
        choices=model.MODES,
        default="local",
        help="who has a connection for each call: chain nobody, outbound the callers, inbound the callees, local both [local]",
    )
    parser.add_argument("--auth", choices=["yes", "no"], default="no", help="whether each INVITE is challenged")
    parser.add_argument(
        "--registration-auth",
        choices=DIGESTS,
        help="digest of REGISTER: a new challenge each time, or a nonce that is kept [as --auth: new or none]",
    )
    parser.add_argument("--mutual", action="store_true", help="both sides of each TLS handshake show certificates")
    parser.add_argument(
        "--reuse", type=float, default=0, metavar="SHARE", help="share of the handshakes that resume a session, 0 to 1"
    )
    parser.add_argument(
        "--hold", type=float, default=0, metavar="SECONDS", help="how long a call lasts: its connections are open meanwhile"
    )
    parser.add_argument("--connections", type=float, default=0, help="connections open beside those of the calls")
    parser.add_argument("--cores-use", type=float, default=0.7, help="share of a core that may be busy [0.7]")
    parser.add_argument("--tls-version")
    parser.add_argument("--key", choices=["rsa", "ec"])
    parser.add_argument("--suite", help="as OpenSSL calls it")
    parser.add_argument("--model", metavar="FILE.json", help="this model instead of the newest")
    parser.add_argument("--any-machine", action="store_true", help="answer for the machine of the model, though it is not this one")
    parser.add_argument("--json", metavar="FILE", help="write the answer here too; - for standard output alone")
    return parser


def newest_model():
    found = sorted(glob.glob(os.path.join(PERF, "results", "*", "model.json")), key=os.path.getmtime)
    if found:
        return found[-1]
    path = os.path.join(PERF, "model.json")
    if os.path.exists(path):
        return path
    raise Refused("there is no model: perf/model fit makes one")


def read_model(path):
    try:
        with open(path) as text:
            return Model(json.load(text)["model"])
    except OSError as why:
        raise Refused(f"the model cannot be read: {why}") from None
    except (ValueError, KeyError, TypeError) as why:
        raise Refused(f"{path} is not a model of perf/model fit ({why!r})") from None


def answer_text(load, answer, data, path):
    """For people."""

    def percent(share):
        return f"{100 * share:.1f} %"

    lines = [f"{data['contestant']} on {data['machine']}; model of {data['date']} ({os.path.relpath(path)})", ""]
    waking = answer["one_core"] - answer["work"]
    lines.append(
        f"one core      {percent(answer['work'])} of its capacity"
        + (
            f"; busy {percent(answer['one_core'])}, {percent(waking)} of it waking, which it gives back under load"
            if waking > 0
            else ""
        )
    )
    lines.append(
        f"cores         {answer['workers']} at no more than {percent(answer['use'])} of their capacity"
        + (f"; each {percent(answer['work'] * answer['factor'] / answer['workers'])}" if answer["workers"] > 1 else "")
    )
    if answer["us_per_call"]:
        lines.append(f"a call        {answer['us_per_call']:.1f} µs at this load")
    lines.append(f"headroom      {answer['headroom']:.2f} times this load before {percent(answer['use'])} is used")
    full = [f"{answer[f'full_core_{what}']:,.0f} {what}/s" for what in ("calls", "registrations") if answer[f"full_core_{what}"]]
    lines += [f"a full core   {' and '.join(full)} in this proportion", ""]
    width = max(len(name) for name in answer["parts"])
    for name, value in sorted(answer["parts"].items(), key=lambda item: -item[1]):
        lines.append(f"{name:<{width}}  {100 * value:8.2f} % of a core  {100 * value / answer['one_core']:6.1f} % of the sum")
    lines += ["", model.in_words(load, answer) + "."]
    return "\n".join(lines)


def predict_command():
    arguments = predict_parser().parse_args()
    load = Load(
        arguments.calls,
        arguments.registrations,
        arguments.transport,
        arguments.mode,
        arguments.auth,
        arguments.mutual,
        arguments.reuse,
        arguments.hold,
        arguments.connections,
        arguments.registration_auth,
        arguments.tls_version,
        arguments.key,
        arguments.suite,
        arguments.cores_use,
        arguments.left,
        arguments.right,
    )
    try:
        load.check()
        path = arguments.model or newest_model()
        found = read_model(path)
        if not arguments.any_machine:
            found.check_machine(cpu_of(machine.describe()))
        answer = found.predict(load)
    except Refused as why:
        print(f"perf/model predict: {why}.", file=sys.stderr)
        sys.exit(2)
    if arguments.json != "-":
        print(answer_text(load, answer, found.data, path))
    if arguments.json:
        whole = {
            "load": vars(load),
            "machine": found.data["machine"],
            "model": path,
            **answer,
            "dominating": model.in_words(load, answer),
        }
        text = json.dumps(whole, indent=1)
        if arguments.json == "-":
            print(text)
        else:
            with open(arguments.json, "w") as target:
                target.write(text + "\n")


def main():
    commands = {"fit": fit_command, "predict": predict_command}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit("usage: perf/model fit|predict …  (each has --help)")
    commands[sys.argv.pop(1)]()


if __name__ == "__main__":
    main()
