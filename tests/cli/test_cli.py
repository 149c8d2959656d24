"""The command line as a person meets it, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cad_exp
from tests import warm

ROOT = Path(cad_exp.__file__).resolve().parents[1]


def cad(
    *arguments: str, folder: Path, timeout: float = 120, libraries: str = "light", pictures: bool = True
) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    return warm.run(list(arguments), timeout, libraries=libraries, pictures=pictures, cwd=folder, env=environment)


@pytest.fixture
def fake_run(tmp_path: Path) -> Path:
    """A folder whose sitecustomize replaces `pipeline.run`: the command line alone is tested, without torch."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "module = types.ModuleType('cad_exp.pipeline.run')\n"
        "def run(config, folder):\n"
        "    from cad_exp.utils.errors import UserError\n"
        "    assert folder.is_dir() and isinstance(config, dict)\n"
        "    if config['concept']['name'] == 'tench':\n"
        "        raise UserError('no [tench] today: take another')\n"
        "    if config['concept']['name'] == 'golf_ball':\n"
        "        1 / 0\n"
        "    if config['concept']['name'] == 'gas_pump':\n"
        "        raise type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory')\n"
        "    if config['concept']['name'] == 'parachute':\n"
        "        import time; print('ready', flush=True); time.sleep(60)\n"
        "    (folder / 'done').write_text(config['granularity']['name'])\n"
        "module.execute = lambda config, graph, folder: run(config, folder)\n"
        "sys.modules['cad_exp.pipeline.run'] = module\n"
        "from contextlib import nullcontext\n"
        "from cad_exp.utils import gpu_lock\n"
        "gpu_lock.own = lambda device: nullcontext()\n"  # the real one looks for GPUs with torch
    )
    return tmp_path


def fake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    (folder / "work").mkdir(exist_ok=True)
    return warm.run(list(arguments), cwd=folder / "work", env=environment)


def test_help_explains_every_option(tmp_path: Path):
    answer = cad("--help", folder=tmp_path)
    assert answer.returncode == 0
    for word in (
        "granularity",
        "sd14",
        "church",
        "naked person",
        "what to find",
        "-m",
        "tracking.mode",
        "hydra.run.dir",
    ):
        assert word in answer.stdout
    assert "_edit" not in answer.stdout and max(map(len, answer.stdout.splitlines())) <= 120
    assert not list(tmp_path.iterdir())


def test_help_names_the_options_of_a_users_folder(tmp_path: Path):
    (tmp_path / "concept").mkdir()
    (tmp_path / "concept" / "teapot.yaml").write_text("# object: a teapot\nname: teapot\n")
    assert "object: a teapot" in cad("--help", "--config-dir", str(tmp_path), folder=tmp_path).stdout


def test_import_is_light():
    heavy = {"torch", "wandb", "diffusers", "matplotlib"}
    code = f"import sys, cad_exp, cad_exp.__main__; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["concept=nudty"], ["unknown concept 'nudty'", "did you mean nudity?", "church, "]),
        (["-m", "concept=church,tenhc"], ["did you mean tench?"]),
        (["edit.ratoi=0.1"], ["'ratoi'", "did you mean ratio?"]),
        (["edit=joint", "edit.loewst=-1"], ["did you mean lowest?", "beyond"]),  # those of the option that was chosen
        (["edit=amplify", "edit.strength=auto"], ["edit=erase, greedy, hard_concrete, joint have it"]),
        (["edit.ablation=resample"], ["unknown setting in edit 'ablation': edit=", "erase, "]),  # another option's
        (["concpt=church"], ["did you mean concept?"]),
        (["modle.steps=3"], ["did you mean model?"]),
        (["edit.scope.row=3"], ["'edit.scope' is one value"]),
        (["concept=church,tench"], ["add -m"]),
        (["concept=custom"], ['concept.prompt="..."']),
        (["model=local"], ['model.path="..."']),
        (["concept"], ["write concept=VALUE"]),
        (["estimator=nan"], ["unknown estimator 'nan'. There are: "]),  # no slip of wanda
        (["noisy_latents=1e5"], ["unknown noisy_latents '1e5'. There are: default"]),
        (["edit=on"], ["unknown edit 'on'. There are: "]),
        (["tracking=off"], ["unknown tracking 'off': did you mean disabled?"]),
        (["-m", "estimator=shapley,1"], ["unknown estimator '1'. There are: "]),
        (["-m", "concept=range(0,1000000000)"], ["unknown concept '0'. There are: "]),
        (["a" * 5000 + "=1"], ["is no setting: a name of 5,000 letters"]),
        (["edit." + "a" * 5000 + "=1"], ["is no setting: a name of 5,005 letters"]),
        (["concept=" + "a" * 5000], ["unknown concept 'aaaa", "aaaa...'. There are: "]),
        (["concept=[church,tench]"], ["a run has one concept", "-m concept=church,tench"]),
        (
            ["tabels", "outputs"],
            ["did you mean 'tables'? There are: cache, export, hookpoints, latents, memory, plugins, "],
        ),
    ],
)
def test_a_wrong_command_gets_one_line(arguments: list[str], expected: list[str], fake_run: Path):
    answer = fake(fake_run, *arguments)
    assert answer.returncode == 2 and not answer.stdout
    assert answer.stderr.count("\n") == 1 and answer.stderr.startswith("error: ")
    for text in expected:
        assert text in answer.stderr


def test_a_run_has_its_folder_and_leaves_nothing_else(fake_run: Path):
    answer = fake(fake_run, "concept=church", "granularity=head")
    assert answer.returncode == 0, answer.stderr
    assert [path.name for path in (fake_run / "work").iterdir()] == ["outputs"]
    [done] = fake_run.glob("work/outputs/church-head-*/done")
    assert (done.parent / "config" / "config.yaml").is_file()


def test_hydras_run_folder_is_honoured(fake_run: Path):
    assert fake(fake_run, "hydra.run.dir=here").returncode == 0
    assert (fake_run / "work" / "here" / "done").read_text() == "neuron"


def test_a_sweep_has_a_folder_per_job(fake_run: Path):
    answer = fake(fake_run, "-m", "concept=church,van_gogh", "granularity=head,neuron", "hydra.sweep.dir=sweep")
    assert answer.returncode == 0, answer.stderr
    names = sorted(path.parent.name.rpartition("-")[0] for path in (fake_run / "work" / "sweep").glob("*/done"))
    assert names == ["church-head", "church-neuron", "van_gogh-head", "van_gogh-neuron"]
    assert "job 4: concept=van_gogh,granularity=neuron" in answer.stdout


def test_a_failing_job_speaks_and_lets_the_others_run(fake_run: Path):
    answer = fake(fake_run, "-m", "concept=tench,church", "hydra.sweep.dir=sweep")
    first, *end = answer.stderr.splitlines()
    assert answer.returncode == 1 and first == "error: no [tench] today: take another"
    assert end[0].startswith("error: 1 of 2 jobs failed") and "no [tench] today" in end[1]
    [failed] = (fake_run / "work" / "sweep").glob("tench-neuron-*")
    assert end[2].strip() == f"python -m cad_exp concept=tench hydra.run.dir={failed}"
    assert json.loads((failed / "error.json").read_text())["error"].startswith("no [tench]")
    assert list((fake_run / "work" / "sweep").glob("church-neuron-*/done"))


NOT_SHAPLEY = "estimator=shapley is not for granularity=weight: use granularity=head or granularity=layer"


def test_jobs_that_can_never_work_are_named_before_the_first_one_starts(fake_run: Path):
    command = ["-m", "estimator=shapley", "granularity=head,weight", "edit=erase", "hydra.sweep.dir=sweep"]
    answer = fake(fake_run, *command)
    before = answer.stderr.partition("The others run.")[0]
    assert answer.returncode == 1 and before.startswith("1 of 2 jobs cannot be run:\n")
    assert before.splitlines()[1] == f"  estimator=shapley granularity=weight edit=erase: {NOT_SHAPLEY}"
    assert len(list(fake_run.glob("work/sweep/*/done"))) == 1
    again = fake(fake_run, *command)
    assert again.returncode == 1 and "The others run" not in again.stderr, "it was checked when it began"


def test_a_sweep_of_which_no_job_can_work_leaves_nothing(fake_run: Path):
    answer = fake(fake_run, "-m", "estimator=shapley", "granularity=weight", "seed=0,1", "edit=erase")
    assert answer.returncode == 1 and not list((fake_run / "work").iterdir())
    assert answer.stderr == f"error: none of the 2 jobs can be run: {NOT_SHAPLEY}\n"


def test_a_sweep_that_hydra_could_not_compose_to_its_end_is_not_begun(fake_run: Path):
    answer = fake(fake_run, "-m", "edit=joint,none", "edit.lowest=-1")
    assert answer.returncode == 2 and not list((fake_run / "work").iterdir())
    assert answer.stderr == "error: unknown setting in edit 'lowest': edit=joint has it, so choose that\n"


def test_an_error_file_of_another_program_is_none_of_a_sweeps(fake_run: Path):
    place = fake_run / "work" / "sweep" / "theirs" / "error.json"
    place.parent.mkdir(parents=True)
    place.write_text('{"error": 3}')
    answer = fake(fake_run, "-m", "concept=church", "hydra.sweep.dir=sweep")
    assert answer.returncode == 0 and not answer.stderr and place.read_text() == '{"error": 3}'


def test_a_sweeps_folder_is_named_by_what_it_asks(fake_run: Path):
    for command in (["-m", "concept=church,van_gogh", "seed=3"], ["concept=church,van_gogh", "-m", "seed=3"]):
        assert fake(fake_run, *command).returncode == 0
    [sweep] = (fake_run / "work" / "outputs" / "multirun").iterdir()
    assert sweep.name.startswith("church,van_gogh-") and len(list(sweep.glob("*/done"))) == 2


def test_a_fault_inside_is_one_line_and_its_trace_is_kept(fake_run: Path):
    answer = fake(fake_run, "concept=golf_ball", "hydra.run.dir=here")
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1
    assert "unexpected ZeroDivisionError" in answer.stderr and "here/run.log" in answer.stderr
    assert "Traceback" in (fake_run / "work" / "here" / "run.log").read_text()


def test_too_small_a_gpu_is_told_what_to_make_smaller(fake_run: Path):
    answer = fake(fake_run, "concept=gas_pump", "hydra.run.dir=here", "runtime.batch_size=48")
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1
    assert "runtime.batch_size (noisy latents, now 48)" in answer.stderr and "evaluation.batch_size" in answer.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c(fake_run: Path):
    (fake_run / "work").mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{fake_run}{os.pathsep}{ROOT}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = warm.start(["concept=parachute"], cwd=fake_run / "work", env=environment, **pipes)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors == "error: stopped; the same command continues where it was\n"


def test_own_configs_extend_the_package(fake_run: Path):
    own = fake_run / "mine" / "concept"
    own.mkdir(parents=True)
    (own / "teapot.yaml").write_text("# object: a teapot\ndefaults: [_object, _self_]\nname: teapot\nnoun: teapot\n")
    answer = fake(fake_run, "--config-dir", str(fake_run / "mine"), "concept=teapot", "hydra.run.dir=here")
    assert answer.returncode == 0, answer.stderr
    assert "noun: teapot" in (fake_run / "work" / "here" / "config" / "config.yaml").read_text()
    assert "did you mean teapot?" in fake(fake_run, f"--config-dir={fake_run / 'mine'}", "concept=teapto").stderr


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(tmp_path: Path):
    build = [sys.executable, "-m", "build", "-o", str(tmp_path / "wheel"), str(ROOT)]  # the wheel from the sdist
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    [wheel] = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    configs = {f"cad_exp/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    weights = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cad_exp" / "mini" / "weights").rglob("*")
        if path.is_file()
    }
    assert configs | weights <= names and not any(name.startswith(("tests", "conf/", "outputs")) for name in names)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}

    def asked(*arguments: str, seconds: int = 60) -> str:
        command = [sys.executable, "-m", "cad_exp", *arguments]
        settings = {"env": environment, "capture_output": True, "text": True, "timeout": seconds}
        answer = subprocess.run(command, cwd=empty, **settings)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    (empty := tmp_path / "empty").mkdir()
    assert "model=" in asked("--help") and "name: church" in asked("--cfg", "job", "concept=church")
    assert "concept" in asked("tables", "--help") and "name: " in asked("--cfg", "job", "experiment=dose")
    small = ["model.steps=2", "noisy_latents.samples=1", "noisy_latents.steps=2", "evaluation=none"]
    asked("concept=church", "granularity=head", *small, "tracking=disabled", "hydra.run.dir=run", seconds=300)
    assert (empty / "run" / "results.json").is_file() and (empty / "run" / "edit.safetensors").is_file()
