"""perf/reproduce registrar|proxy|modes|all: what the two studies measured, measured today, beside their figures.

Each writes reproduce-NAME.md, .json and its plots (SVG and PNG) into perf/results/<date>-<host>/. The JSON's list `measurements`
has one entry for each run of the generator, as strowger-load wrote it, and beside that:

contestant       strowger or kamailio configuration    chain-tls-auth and so on: Configuration.name (modes, proxy); "TCP, one
socket" (proxy); register-udp-auth and so on (registrar) label            the same for people what             saturation (WINDOW
outstanding), fixed rate (modes), rate (registrar, proxy), peak (each step of a search), peak found (its result) round
from 0 complaint        why what happened is not what was meant, or null

modes measures the report's 20 configurations, and local-udp and local-udp-auth, the base of calls to registered users. With
--for-model it adds what a cost model needs to tell the parts apart: outbound, inbound and local without digest or with, where the
report has the other of the two. registrar measures register-udp, register-tcp, register-udp-auth and register-tcp-auth; with
--for-model also register-tls and register-tls-auth."""

import modes
import proxy
import registrar
import study

COMMANDS = {each.name: each for each in (registrar.Registrar, proxy.Proxy, modes.Modes)}


class All:
    """One after the other; what fails in one does not keep the others from being measured, but who ends one ends them all."""

    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory

    def run(self):
        failed = []
        for name, command in COMMANDS.items():
            reproduction = command(self.arguments, self.directory)
            try:
                reproduction.run()
            except RuntimeError as why:
                failed.append(f"{name}: {why}")
            if reproduction.is_interrupted:
                break
        if failed:
            raise RuntimeError("; ".join(failed))


def main():
    parser = study.options("perf/reproduce", "Measures what the two published studies measured, and draws it beside their figures.")
    parser.add_argument("what", choices=[*COMMANDS, "all"], help="registrar and proxy: the thesis; modes: the report")
    parser.add_argument(
        "--cases",
        type=lambda text: text.split(","),
        default=[],
        help="only the configurations whose names contain one of these parts (chain-tls,mutual)",
    )
    parser.add_argument(
        "--without", type=lambda text: text.split(","), default=[], help="and none whose name contains one of these (3des)"
    )
    parser.add_argument(
        "--fixed-rate", type=float, default=200, help="modes: the rate at which CPU per call is read beside saturation [200/s]"
    )
    parser.add_argument("--for-model", action="store_true", help="registrar, modes: also what only the cost model needs")
    parser.add_argument(
        "--redraw",
        metavar="FILE.json",
        nargs="+",
        help="measure nothing: make the report and its plots again from this one's JSON, or from those of several runs",
    )
    study.run(
        parser, lambda arguments, directory: (All if arguments.what == "all" else COMMANDS[arguments.what])(arguments, directory)
    )


if __name__ == "__main__":
    main()
