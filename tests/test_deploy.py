"""The examples under deploy/: their commands are the server's, their times let it drain."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from palate.cli import app

DEPLOY = Path(__file__).parents[1] / "deploy"


def unit(name: str) -> dict[str, str]:
    """The last value of each key of a systemd unit."""
    joined = (DEPLOY / name).read_text().replace("\\\n", " ")
    return dict(re.findall(r"^(\w+)=(.*)$", joined, re.MULTILINE))


def kubernetes() -> dict[str, dict]:
    return {
        one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    }


def container() -> dict:
    return kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def containerfile(word: str) -> str:
    """The value of the last such line."""
    return re.findall(rf"^{word} (.*)$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)[-1]


def commands() -> dict[str, list[str]]:
    """The arguments that each file gives to `palate serve`."""
    return {
        "Containerfile": yaml.safe_load(containerfile("CMD")),
        "kubernetes.yaml": container()["args"],
        "palate.service": shlex.split(unit("palate.service")["ExecStart"])[2:],
        "palate@.service": shlex.split(unit("palate@.service")["ExecStart"])[2:],
    }


def times() -> dict[str, float]:
    """After how many seconds each kills what has not stopped."""
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["palate"]
    return {
        "Containerfile": float(compose["stop_grace_period"].removesuffix("s")),
        "kubernetes.yaml": pod["terminationGracePeriodSeconds"],
        "palate.service": float(unit("palate.service")["TimeoutStopSec"]),
        "palate@.service": float(unit("palate@.service")["TimeoutStopSec"]),
    }


@pytest.mark.parametrize("name", commands())
def test_the_command_is_one_that_serve_takes_and_has_time_to_drain(name):
    serve = get_command(app).commands["serve"]
    with serve.make_context("serve", list(commands()[name]), resilient_parsing=False) as context:
        options = context.params
    assert options["models"]
    assert options["tokens"], "others than this machine may reach it"
    assert times()[name] > options["grace_seconds"] + options["drain_seconds"]


def test_the_image_s_user_is_a_number_that_kubernetes_can_tell_from_root():
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    assert containerfile("USER") == str(pod["securityContext"]["runAsUser"]) != "0"
    assert str(container()["ports"][0]["containerPort"]) == containerfile("EXPOSE")


def test_kubernetes_takes_the_example():
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for one in kubernetes().values():
        validate.validate(one, "1.37", strict=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_units(tmp_path):
    for name in ("palate.service", "palate@.service", "palate.socket"):
        text = (DEPLOY / name).read_text()
        # It looks whether the program is there.
        (tmp_path / name).write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    command = ["systemd-analyze", "verify", "./palate.service", "./palate.socket"]
    done = subprocess.run(
        [*command, "./palate@a.service"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
