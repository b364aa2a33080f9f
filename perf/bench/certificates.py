"""One CA and two certificates of it for 127.0.0.1 and the users' contacts, RSA-2048 and P-256, made with the openssl command and
kept in perf/results/certs."""

import os
import subprocess
import time

from contestants import PERF

DIRECTORY = os.path.join(PERF, "results", "certs")
KINDS = {"rsa": ["-newkey", "rsa:2048"], "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]}
DAYS = 90
# Between two addresses the kernel has some 14,000 ports to connect from, and takes each again only a second after its last use.
# Near 14,000 connections a second it searches long for one, at the expense of who connects: so where each call has a connection,
# the callers' come from this many addresses, and users' contacts are at this many.
ADDRESSES = 8
# The generator's `--spread` begins here, and strowger proves whom it connects to.
HOSTS = ["127.0.0.1", *(f"127.100.100.{100 + number}" for number in range(ADDRESSES))]
EXTENSIONS = f"subjectAltName={','.join(f'IP:{host}' for host in HOSTS)},DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"


def path(name):
    return os.path.join(DIRECTORY, name)


def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], cwd=DIRECTORY, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {' '.join(arguments)}:\n{done.stderr}")


def make():
    """Both kinds are signed by the same CA, with a P-256 key: verifying a chain costs the same for both."""
    made = path("made")
    if os.path.exists(made) and time.time() - os.path.getmtime(made) < DAYS / 2 * 86400:
        with open(path("extensions")) as text:
            if text.read() == EXTENSIONS:
                return
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    openssl(
        "req",
        "-x509",
        *KINDS["ec"],
        "-nodes",
        "-subj",
        "/CN=strowger perf CA",
        "-days",
        str(DAYS),
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    with open(path("extensions"), "w") as text:
        text.write(EXTENSIONS)
    for number, (name, key) in enumerate(KINDS.items()):
        openssl("req", "-new", *key, "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-set_serial",
            str(number + 2),
            "-days",
            str(DAYS),
            "-extfile",
            "extensions",
            "-out",
            f"{name}.pem",
        )
    with open(made, "w"):
        pass
