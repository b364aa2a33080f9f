"""One CA, and certificates of it for the server's address and the users' contacts: RSA-2048, P-256, Ed25519, and a P-256 one at the
end of a chain of three. Made with the openssl command and kept in perf/results/certs."""

import time
from pathlib import Path

from cases import ADDRESSES
from machine import run
from report import PERF

KINDS = {
    "rsa": ["-newkey", "rsa:2048"],
    "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ed25519": ["-newkey", "ed25519"],
}
DAYS = 90


FOLDER = PERF / "results" / "certs"


def path(name: str) -> str:
    return str(FOLDER / name)


def openssl(*arguments: str) -> None:
    run("openssl", *arguments, cwd=FOLDER)


def make(address: str = "127.0.0.1", only_names: bool = False) -> Path:
    """The folder of the certificates, made anew if they are for other addresses or soon over. All are signed with P-256 keys:
    verifying a chain of one costs the same for each kind."""
    folder = FOLDER
    # The generator's `--spread` begins at .100, and strowger proves whom it connects to.
    hosts = dict.fromkeys([address, "127.0.0.1", *(f"127.100.100.{100 + number}" for number in range(ADDRESSES))])
    names = ",".join(f"IP:{host}" for host in hosts)
    leaf = f"subjectAltName={names},DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"
    made = folder / "made"
    if only_names or (made.exists() and made.read_text() == leaf and time.time() - made.stat().st_mtime < DAYS / 2 * 86_400):
        return folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def sign(name: str, key: list[str], subject: str, issuer: str, serial: int, extensions: str) -> None:
        (folder / "extensions").write_text(extensions)
        openssl("req", "-new", *key, "-nodes", "-subj", f"/CN={subject}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        issued = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-set_serial", str(serial)]
        openssl("x509", "-req", "-in", f"{name}.csr", *issued, "-out", f"{name}.pem", "-days", str(DAYS), "-extfile", "extensions")

    subject = "/CN=strowger perf CA"
    openssl("req", "-x509", *KINDS["ec"], "-nodes", "-subj", subject, "-days", str(DAYS), "-keyout", "ca.key", "-out", "ca.pem")
    for number, (name, key) in enumerate(KINDS.items()):
        sign(name, key, address, "ca", number + 2, leaf)
    sign("intermediate", KINDS["ec"], "strowger perf intermediate CA", "ca", 20, "basicConstraints=critical,CA:TRUE,pathlen:0\n")
    sign("chain", KINDS["ec"], address, "intermediate", 21, leaf)
    # The leaf, then who signed it; the root is what the other side trusts.
    (folder / "chain.pem").write_text((folder / "chain.pem").read_text() + (folder / "intermediate.pem").read_text())
    made.write_text(leaf)
    return folder
