"""Runs that are stopped, run out of room, or find their checkpoints damaged: what they say, and how they go on."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from accelerate.state import AcceleratorState
from factories import make_tiny_model
from safetensors import SafetensorError
from transformers import PreTrainedModel
from trials.kill_and_resume import COMPARED_FILES, TRAIN, make_dataset

from hybridiqa.commands import train
from hybridiqa.training import checkpoints
from hybridiqa.training import report as run_report
from hybridiqa.training import trainer as training
from hybridiqa.training.checkpoints import FILES_FILE, PROGRESS_FILE, find_fault, latest_state, list_states
from hybridiqa.training.stopping import Stopped, StopSignals
from hybridiqa.utils.root import ROOT

OPTIONS = ["--from_scratch", "--num_train_patches", "4", "--num_eval_patches", "1", "--num_resamples", "20"]
OPTIONS += ["--batch_size", "8", "--num_epochs", "2", "--mixed_precision", "no", "--learning_rate", "1e-4"]
OPTIONS += ["--save_steps", "4", "--logging_steps", "5"]  # 6 steps an epoch: after step 4, 6, 8 and 12


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Make a folder with a prepared dataset and the configuration of a tiny model."""
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "prepared")
    make_tiny_model().config.save_pretrained(folder / "config")
    return folder


def command(data: Path, output_dir: Path, *more: str) -> list[str]:
    places = ["--dataset", str(data / "prepared"), "--config", str(data / "config"), "--output_dir", str(output_dir)]
    return [*places, *OPTIONS, *more]


def run(data: Path, output_dir: Path, *more: str) -> int:
    """Call train.py as in a new process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return train.main(command(data, output_dir, *more))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> Path:
    """Do a run that nothing stops."""
    output_dir = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run(data, output_dir) == 0
    return output_dir


@pytest.fixture
def out(undisturbed, tmp_path) -> Path:
    """Copy the undisturbed run, without what is written at its end."""
    output_dir = tmp_path / "out"
    shutil.copytree(undisturbed, output_dir)
    for name in COMPARED_FILES:
        (output_dir / name).unlink()
    return output_dir


def steps_in(output_dir: Path) -> list[str]:
    return [path.name for path in reversed(list_states(output_dir / "checkpoints"))]


def assert_ended_alike(output_dir: Path, undisturbed: Path) -> None:
    for name in COMPARED_FILES:
        assert (output_dir / name).read_bytes() == (undisturbed / name).read_bytes(), name


def last_error(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


FILES = ("model.safetensors", "optimizer.bin", "random_states_0.pkl", PROGRESS_FILE, FILES_FILE)


@pytest.mark.parametrize("damage", [cut, empty, Path.unlink, change_a_byte])
@pytest.mark.parametrize("name", FILES)
def test_every_damage_of_every_file_is_found(out, name, damage):
    newest = latest_state(out / "checkpoints")
    assert newest.name == "step-00000012" and find_fault(newest) is None
    damage(newest / name)
    # Without the list, the files are asked themselves: that one byte has changed, some of them do not tell.
    assert (find_fault(newest) is None) == ((name, damage) == (FILES_FILE, Path.unlink))


@pytest.mark.parametrize("damage", [cut, empty, Path.unlink])
@pytest.mark.parametrize("name", FILES[:-1])
def test_damage_is_found_in_a_checkpoint_of_an_older_version_where_its_files_tell(out, name, damage):
    newest = latest_state(out / "checkpoints")
    (newest / FILES_FILE).unlink()
    damage(newest / name)
    if damage is not Path.unlink or name == PROGRESS_FILE:  # what is not there is noticed when it is loaded
        assert find_fault(newest)


def test_damage_of_the_model_that_a_checkpoint_names_is_found(out):
    newest = latest_state(out / "checkpoints")
    best = out / "checkpoints" / checkpoints.read_progress(newest)["best"]["model"]
    cut(best / "model.safetensors")
    assert "model.safetensors has" in find_fault(newest)
    shutil.rmtree(best)
    assert find_fault(newest) == f"the model {best.name} is missing"


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(
    out, undisturbed, data, caplog, name, is_listed
):
    newest = latest_state(out / "checkpoints")
    if not is_listed:
        (newest / FILES_FILE).unlink()
        (newest / name).unlink()
    else:
        cut(newest / name)
    assert run(data, out, "--resume") == 0
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(f"the checkpoint {newest} is damaged, the one before it is used: " in text for text in told)
    assert any("goes on from step-00000008" in record.getMessage() for record in caplog.records)
    assert find_fault(newest) is None  # written anew
    assert_ended_alike(out, undisturbed)


def test_where_no_checkpoint_is_whole_the_run_does_not_begin_anew(out, data, capsys):
    for folder in list_states(out / "checkpoints"):
        (folder / PROGRESS_FILE).write_text("[]")
    before = sorted(out.rglob("*"))
    assert run(data, out, "--resume") == 2
    error = last_error(capsys)
    assert error.startswith(
        f"train.py: error: --resume: no checkpoint in {out / 'checkpoints'} is whole: step-00000012"
    )
    assert "step-00000008 (progress.json is not what a run writes)" in error
    assert sorted(out.rglob("*")) == before


def test_a_complete_run_without_checkpoints_is_not_begun_anew(undisturbed, data, tmp_path, capsys):
    shutil.copytree(undisturbed, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "checkpoints")
    assert run(data, tmp_path / "out", "--resume") == 2
    assert "holds a run that is complete and has no checkpoint to go on from" in last_error(capsys)
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_damaged_options_of_a_run_are_one_line(out, data, capsys):
    for text in ("", "[1]", "{"):
        (out / "training_arguments.json").write_text(text)
        assert run(data, out, "--resume") == 2
        assert last_error(capsys).endswith(
            "training_arguments.json is damaged, so the options of the run are not known"
        )


def test_only_folders_that_a_run_has_named_are_checkpoints(out, undisturbed, data):
    folder = out / "checkpoints"
    for name in ("step-zzz", "step-12.tmp", "step-12", "step-000000013", "step-", "best-zzz", "step-00000099 copy"):
        (folder / name).mkdir()
    (folder / "step-00000098").write_text("a file")
    (folder / "step-00000097").symlink_to(latest_state(folder))
    (folder / ".unfinished-mine").write_text("a file")
    (folder / "step-\u0661\u0662").mkdir()
    others = {path for path in folder.iterdir() if path not in list_states(folder) and path.name != "best-0001"}
    assert steps_in(out) == ["step-00000008", "step-00000012"]
    assert run(data, out, "--resume", "--num_epochs", "3") == 0
    assert {path for path in others if not path.name.startswith("best-0")} <= set(folder.iterdir())
    assert steps_in(out) == ["step-00000016", "step-00000018"]


def test_a_name_that_is_taken_by_a_file_is_one_line(out, data, capsys):
    (out / "checkpoints" / "step-00000016").write_text("a file")
    assert run(data, out, "--resume", "--num_epochs", "3") == 1
    assert "step-00000016: a file or a link has its name" in last_error(capsys)
    assert (out / "checkpoints" / "step-00000016").read_text() == "a file" and len(steps_in(out)) == 2


def test_damaged_checkpoints_do_not_count_among_those_that_are_kept(out, data, monkeypatch):
    newest = latest_state(out / "checkpoints")
    cut(newest / "model.safetensors")
    stop_in_step(monkeypatch, 9, signal.SIGTERM)
    assert run(data, out, "--resume", "--save_total_limit", "1") == 128 + signal.SIGTERM
    assert steps_in(out) == ["step-00000009", newest.name] and find_fault(list_states(newest.parent)[1]) is None
    assert latest_state(newest.parent).name == "step-00000009"


def stop_in_step(monkeypatch, number: int, *signals: int) -> None:
    """Send signals in the midst of a step."""
    step = training.Trainer._step

    def step_and_signal(trainer, batch):
        if trainer.progress.step + 1 == number:
            monkeypatch.setattr(training.Trainer, "_step", step)
            for sent in signals:
                signal.raise_signal(sent)
        step(trainer, batch)

    monkeypatch.setattr(training.Trainer, "_step", step_and_signal)


# In the first step, between two, in one that is saved by itself, at the end of an epoch, behind it, in the last.
@pytest.mark.parametrize("number", [1, 3, 4, 6, 7, 12])
def test_a_signal_ends_the_run_after_the_step_and_the_resumed_run_ends_alike(
    data, undisturbed, tmp_path, monkeypatch, capsys, number
):
    sent = signal.SIGTERM if number % 3 == 0 else signal.SIGINT
    stop_in_step(monkeypatch, number, sent)
    out = tmp_path / "out"
    assert run(data, out) == 128 + sent
    newest = latest_state(out / "checkpoints")
    assert newest.name == f"step-{number:08}" and find_fault(newest) is None
    name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[sent]
    expected = f"the last checkpoint is {newest}, the same command with --resume goes on from it"
    assert last_error(capsys) == f"train.py: stopped by {name}: {expected}"
    assert run(data, out, "--resume") == 0
    assert_ended_alike(out, undisturbed)


def test_a_run_of_so_many_steps_is_stopped_in_the_last_and_goes_on(data, tmp_path, monkeypatch):
    assert run(data, tmp_path / "undisturbed", "--max_steps", "7") == 0
    stop_in_step(monkeypatch, 7, signal.SIGINT)
    assert run(data, tmp_path / "out", "--max_steps", "7") == 130
    assert run(data, tmp_path / "out", "--max_steps", "7", "--resume") == 0
    assert_ended_alike_but_for_the_command(tmp_path / "out", tmp_path / "undisturbed")


def assert_ended_alike_but_for_the_command(output_dir: Path, other: Path) -> None:
    for name in set(COMPARED_FILES) - {"README.md"}:
        assert (output_dir / name).read_bytes() == (other / name).read_bytes(), name


def test_a_signal_in_the_evaluation_loses_no_step(data, undisturbed, tmp_path, monkeypatch, capsys):
    predict = training.predict

    def signal_and_predict(*args):
        monkeypatch.setattr(training, "predict", predict)
        signal.raise_signal(signal.SIGTERM)
        return predict(*args)

    monkeypatch.setattr(training, "predict", signal_and_predict)
    assert run(data, tmp_path / "out") == 143
    assert "the last checkpoint is" in last_error(capsys) and steps_in(tmp_path / "out")[-1] == "step-00000006"
    assert run(data, tmp_path / "out", "--resume") == 0
    assert_ended_alike(tmp_path / "out", undisturbed)


def test_a_signal_in_the_evaluation_at_the_end_names_the_checkpoint(out, undisturbed, data, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(run_report, "predict", lambda *_: signal.raise_signal(signal.SIGINT))
        assert run(data, out, "--resume") == 130
    assert f"the last checkpoint is {out / 'checkpoints' / 'step-00000012'}, the same" in last_error(capsys)
    assert run(data, out, "--resume") == 0
    assert_ended_alike(out, undisturbed)


@pytest.mark.parametrize("where", ["load_prepared", "build_model", "dataset_hash"])
def test_a_signal_before_the_first_step_says_that_there_is_no_checkpoint(data, tmp_path, monkeypatch, capsys, where):
    with monkeypatch.context() as patch:
        patch.setattr(train, where, lambda *_: signal.raise_signal(signal.SIGTERM))
        assert run(data, tmp_path / "out") == 143
    expected = "there is no checkpoint yet, the same command with --resume begins at the first step"
    assert last_error(capsys) == f"train.py: stopped by SIGTERM: {expected}"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # as it was before


def test_a_second_ctrl_c_stops_at_once(data, tmp_path):
    code = "import signal; from hybridiqa.training.stopping import StopSignals\n"
    code += "with StopSignals() as signals, signals.waiting():\n"
    code += "    signal.raise_signal(signal.{first}); print('waits', flush=True)\n"
    code += "    signal.raise_signal(signal.{second}); print('waits still', flush=True)\n"
    for first, second, status, num_lines in (
        ("SIGINT", "SIGINT", -signal.SIGINT, 1),
        ("SIGTERM", "SIGINT", -signal.SIGINT, 1),
        ("SIGTERM", "SIGTERM", 1, 2),
        ("SIGINT", "SIGTERM", 1, 2),
    ):
        script = code.format(first=first, second=second)
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert len(done.stdout.splitlines()) == num_lines, done.stderr
        assert done.returncode == status or num_lines == 2
        assert num_lines == 2 or "Traceback" not in done.stderr


def test_signals_are_handled_in_the_main_thread_for_as_long_as_a_run_lasts():
    before = signal.getsignal(signal.SIGINT)
    with StopSignals():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
    with ThreadPoolExecutor(1) as pool:
        pool.submit(StopSignals().__enter__).result()
    assert signal.getsignal(signal.SIGINT) == before


def fail_in(monkeypatch, owner, name: str, error: Exception, number: int) -> None:
    """Let one of the calls of a function write half of what it writes and then fail."""
    function, calls = getattr(owner, name), []

    def fail(*args, **options):
        calls.append(name)
        result = function(*args, **options)
        if len(calls) == number:
            raise error
        return result

    monkeypatch.setattr(owner, name, fail)


NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("owner", "name", "error", "number", "last"),
    [
        (training.Accelerator, "save_state", NO_SPACE, 1, None),
        (training.Accelerator, "save_state", SafetensorError("I/O error: No space left on device"), 2, "step-00000004"),
        (
            training.Accelerator,
            "save_state",
            RuntimeError("file write failed: No space left on device"),
            3,
            "step-00000006",
        ),
        (checkpoints, "sync_to_disk", NO_SPACE, 9, "step-00000004"),
        (checkpoints, "content_hash", NO_SPACE, 7, "step-00000004"),
        (run_report, "plot_training", NO_SPACE, 1, "step-00000012"),
        (run_report, "write_json", NO_SPACE, 1, "step-00000012"),
        (run_report, "write_model_card", NO_SPACE, 1, "step-00000012"),
    ],
)
def test_a_full_disk_is_one_line_and_the_run_goes_on_from_the_last_checkpoint(
    data, undisturbed, tmp_path, monkeypatch, capsys, owner, name, error, number, last
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        fail_in(patch, owner, name, error, number)
        assert run(data, out) == 1
    text = last_error(capsys)
    assert text.startswith("train.py: stopped: cannot write ") and "No space left on device" in text
    assert ": the disk is full, make room there: " in text and "MB are free there" in text and "--resume" in text
    assert (f"{last}, the same command" if last else "there is no checkpoint yet") in text
    assert not [path for path in out.rglob("*") if path.name.startswith(".unfinished")]
    assert all(find_fault(folder) is None for folder in list_states(out / "checkpoints"))
    assert run(data, out, "--resume") == 0
    assert_ended_alike(out, undisturbed)


def test_a_model_that_cannot_be_written_is_not_there(out, undisturbed, data, monkeypatch, capsys):
    def write_half(model, folder, **_):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", write_half)
        assert run(data, out, "--resume") == 1
    assert "cannot write" in last_error(capsys) and not (out / "model.safetensors").exists()
    assert run(data, out, "--resume") == 0
    assert_ended_alike(out, undisturbed)


def test_options_that_cannot_be_written_leave_the_folder_free(data, undisturbed, tmp_path, monkeypatch, capsys):
    def refuse(_, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("hybridiqa.utils.atomic.os.replace", refuse)
        assert run(data, tmp_path / "out") == 1
    error = last_error(capsys)
    assert "stopped: cannot write " in error and "No space left on device; there is no checkpoint yet" in error
    assert run(data, tmp_path / "out") == 0


ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let the system refuse files of more than 20 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_files_that_the_system_does_not_let_grow_are_one_line(data, tmp_path, capsys, small_files):
    assert run(data, tmp_path / "out") == 1
    assert "step-00000004: " in last_error(capsys) and not steps_in(tmp_path / "out")


def wait_for_checkpoint(process: subprocess.Popen, folder: Path) -> None:
    while process.poll() is None and latest_state(folder) is None:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("num_processes", "sent"),
    [
        (1, signal.SIGINT),
        (2, signal.SIGTERM),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_from_outside_stops_all_processes_in_one_step(data, tmp_path, num_processes, sent):
    more = ["--num_epochs", "400", "--freeze_batch_norm"]
    launcher = [sys.executable]
    if num_processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(num_processes), "--rdzv_backend", "c10d"]
        launcher += ["--rdzv_endpoint", "localhost:0"]
    arguments = [*launcher, TRAIN, *command(data, tmp_path / "out", *more)]
    environment = ENVIRONMENT | {"ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    folder = tmp_path / "out" / "checkpoints"
    wait_for_checkpoint(process, folder)
    # One of two gets it, and both must stop. The launcher would kill them after 30 s, which a busy machine needs.
    receiver = process if num_processes == 1 else psutil.Process(process.pid).children()[-1]
    receiver.send_signal(sent)
    _, errors = process.communicate(timeout=300)
    stopped = "".join(line for line in errors.splitlines() if "train.py: stopped by " in line)
    assert stopped, errors
    newest = latest_state(folder)
    assert f"the last checkpoint is {newest}, the same command with --resume" in stopped
    state = json.loads((newest / PROGRESS_FILE).read_text())
    assert find_fault(newest) is None and (not state["pending"] or len(state["pending"]["loss_sums"]) == num_processes)
    if num_processes == 1:
        assert process.returncode == 128 + sent and "Traceback" not in errors


def test_a_signal_that_comes_while_the_processes_ask_each_other_is_not_lost():
    signals = StopSignals()

    def gather_and_signal(numbers: torch.Tensor) -> torch.Tensor:
        signals.received = signal.SIGTERM
        return numbers

    accelerator = SimpleNamespace(num_processes=2, device=torch.device("cpu"), gather=gather_and_signal)
    trainer = SimpleNamespace(accelerator=accelerator, signals=signals, saved_step=1, progress=SimpleNamespace(step=1))
    training.Trainer._stop_if_asked(trainer, 1)  # the others go on to the next step, so this process does
    with pytest.raises(Stopped):
        training.Trainer._stop_if_asked(trainer, 2)


def test_the_sums_of_two_processes_are_taken_up_by_one(data, out, monkeypatch):
    newest = latest_state(out / "checkpoints")
    state = json.loads((newest / PROGRESS_FILE).read_text())
    taken = []
    resume = training.Trainer._resume_sums

    def resume_and_note(trainer):
        trainer.progress.pending = {"num_patches": 24, "loss_sums": [1.5, 2.0]}
        resume(trainer)
        taken.append((trainer._sums.tolist(), trainer._num_summed, trainer.progress.pending))
        trainer._reset_sums()

    monkeypatch.setattr(training.Trainer, "_resume_sums", resume_and_note)
    assert run(data, out, "--resume") == 0
    assert taken == [([3.5, -1.0], 24, None)] and state["pending"] is None


def test_torch_is_told_of_a_file_that_is_cut(tmp_path):
    """Check what the test of older checkpoints rests on: it reads no pickle, and notices a cut file by the archive."""
    torch.save({"a": torch.arange(1000)}, tmp_path / "optimizer.bin")
    checkpoints._check_unlisted(tmp_path)
    cut(tmp_path / "optimizer.bin")
    with pytest.raises(Exception, match="not a zip"):
        checkpoints._check_unlisted(tmp_path)
