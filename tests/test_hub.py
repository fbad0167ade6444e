"""Task vectors travel: to a hub and back, into one another, and only into models that they fit."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, constants

from stv_exp import TaskVector, TrainedEdit
from stv_exp.errors import StvError
from stv_exp.hub import write_folder
from stv_exp.models.sites import find_heads
from tests.conftest import llama, qwen2

FILE = TaskVector.file
HEADS = {"n_layers": 3, "n_heads": 6, "head_dim": 20}
METADATA = {
    "model": "owner/model",
    "revision": "abc123",
    "dataset": "shapes/colour-0",
    "method": "stv",
    "seed": 3,
    "heads": HEADS,
    "metrics": {"accuracy": 0.975, "n": 200, "seconds": {"total": 1.0}},
}


class Hub(BaseHTTPRequestHandler):
    """The endpoints of a hub that a push and a pull use; HTTP/1.0, so that no connection outlives its answer."""

    def log_message(self, *args):
        pass

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value, status=200, **headers):
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.headers["Authorization"] != "Bearer writer":
            return self.json({"error": "Forbidden"}, 403)
        if parts[:2] == ["api", "repos"]:
            return self.create(json.loads(body))
        if parts == ["api", "validate-yaml"]:
            return self.json({"errors": [], "warnings": []})
        _, _, owner, name, action, revision = parts
        repo = self.server.repos[f"{owner}/{name}"]
        if action == "branch":
            repo.setdefault(revision, {})
            return self.json({})
        if action == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self.json({"files": modes})
        return self.commit(f"{owner}/{name}", repo[revision], body)

    def create(self, wanted):
        repo_id = f"{wanted['organization'] or 'writer'}/{wanted['name']}"
        new = repo_id not in self.server.repos
        self.server.repos.setdefault(repo_id, {"main": {}})
        return self.json({"url": f"{self.server.url}/{repo_id}"}, 200 if new else 409)

    def commit(self, repo_id, files, body):
        header, *operations = [json.loads(line) for line in body.splitlines()]
        self.server.messages.append(header["value"]["summary"])
        for operation in operations:
            files[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
        oid = hashlib.sha1(body).hexdigest()
        return self.json({"commitUrl": f"{self.server.url}/{repo_id}/commit/{oid}", "commitOid": oid})

    def do_GET(self):
        if self.path == "/":
            return self.answer()
        owner, name, *rest = unquote(urlsplit(self.path).path).strip("/").split("/")
        branches = self.server.repos.get(f"{owner}/{name}")
        if self.server.broken:
            return self.answer(self.server.broken)
        if branches is None or rest[0] != "resolve":
            return self.answer(404, X_Error_Code="RepoNotFound")
        if rest[1] not in branches:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        content = branches[rest[1]].get(rest[2])
        if content is None:
            return self.answer(404, X_Error_Code="EntryNotFound")
        oid = hashlib.sha1(content).hexdigest()
        return self.answer(200, content, ETag=f'"{oid}"', X_Repo_Commit=oid)

    def do_HEAD(self):
        self.do_GET()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine that holds nothing, and huggingface_hub's own client to talk to it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.url, server.repos, server.messages, server.broken = f"http://127.0.0.1:{server.server_port}", {}, [], 0
        _point_client_at(server.url, tmp_path, monkeypatch)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    huggingface_hub.close_session()


@pytest.fixture
def no_hub(hub, tmp_path, monkeypatch):
    """The address of a hub that has gone away."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        url = f"http://127.0.0.1:{server.server_port}"
    _point_client_at(url, tmp_path, monkeypatch)
    return url


def _point_client_at(url, tmp_path, monkeypatch):
    huggingface_hub.close_session()  # the next one reads NO_PROXY
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def vector(locations=((0, 1), (2, 3)), mode="replace", dim=20, **metadata) -> TaskVector:
    values = torch.randn(len(locations), dim, generator=torch.Generator().manual_seed(len(locations)))
    return TaskVector(torch.tensor(locations), values, mode, metadata)


def assert_same(one: TaskVector, other: TaskVector) -> None:
    assert torch.equal(one.locations, other.locations) and torch.equal(one.vectors, other.vectors)
    assert (one.mode, one.metadata) == (other.mode, other.metadata)


@pytest.mark.parametrize("without_xet", [False, True])
def test_a_vector_survives_the_hub(hub, monkeypatch, without_xet):
    """By both of the client's ways to upload."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", without_xet)
    pushed = vector(mode="add", **METADATA)
    url = pushed.push_to_hub("owner/name", private=True, token="writer", commit_message="First")
    assert url.startswith(f"{hub.url}/owner/name/commit/") and hub.messages == ["First"]
    assert_same(TaskVector.from_hub("owner/name"), pushed)


def test_the_readmes_script_pulls_pushes_and_combines(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "writer")
    monkeypatch.chdir(tmp_path)
    vector().push_to_hub("owner/name", token="writer")
    vector(((0, 1), (1, 0))).save("other.safetensors")
    (script,) = (b for b in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "push_to_hub" in b)
    names: dict[str, TaskVector] = {}
    exec(script, names)
    assert names["halfway"].locations.tolist() == [[0, 1], [1, 0], [2, 3]]
    assert FILE in hub.repos["you/antonyms"]["main"]


def test_another_process_finds_it_by_the_environment_and_without_torch(hub, tmp_path):
    vector().push_to_hub("owner/name", token="writer")
    code = f"import sys; from stv_exp.hub import download; print(download('owner/name', '{FILE}'))"
    code += "; assert 'torch' not in sys.modules"
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(TaskVector.load(done.stdout.strip()), vector())


def test_a_second_push_replaces_the_first_and_a_revision_keeps_it(hub):
    first, second = vector(), vector([(1, 1)])
    first.push_to_hub("name", token="writer")  # the owner is the token's
    first.push_to_hub("writer/name", token="writer", revision="v1")
    second.push_to_hub("writer/name", token="writer")
    assert_same(TaskVector.from_hub("writer/name"), second)
    assert_same(TaskVector.from_hub("writer/name", revision="v1"), first)
    assert 'from_hub("writer/name")' in hub.repos["writer/name"]["v1"]["README.md"].decode()


def test_what_was_pulled_once_is_there_without_the_hub(hub, monkeypatch):
    vector().push_to_hub("owner/name", token="writer")
    TaskVector.from_hub("owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_same(TaskVector.from_hub("owner/name"), vector())


def test_the_card_says_what_the_vector_is_and_how_it_is_used(hub):
    vector(**METADATA).push_to_hub("owner/name", token="writer")
    card = ModelCard(hub.repos["owner/name"]["main"]["README.md"].decode())
    assert (card.data.library_name, card.data.base_model) == ("stv_exp", "owner/model")
    assert {"task-vector", "in-context-learning", "stv"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("shapes/colour-0", "accuracy", 0.975)
    rows = ["model | owner/model", "model revision | abc123", "dataset | shapes/colour-0", "method | stv", "seed | 3"]
    rows += ["locations (K) | 2", "dimension | 20", "layers | 0, 2", "accuracy | 0.975", "n | 200"]
    for row in rows:
        assert f"| {row} |" in card.text
    script = card.text.split("```python\n")[1].split("```")[0]
    compile(script, "README.md", "exec")
    assert 'TaskVector.from_hub("owner/name")' in script and "with vector.inserted(model):" in script


def test_a_trained_edit_travels_as_a_vector_does_and_is_no_vector(hub):
    options = {"layers": [0, 2], "site": "mlp"}
    parameters = {"vectors": torch.randn(2, 48), "scales": torch.ones(2)}
    edit = TrainedEdit("live", parameters, options, {"method": "live", "model": "owner/model"})
    edit.push_to_hub("owner/edit", token="writer")
    found = TrainedEdit.from_hub("owner/edit")
    assert torch.equal(found.parameters["vectors"], parameters["vectors"]) and found.options == options
    card = hub.repos["owner/edit"]["main"]["README.md"].decode()
    assert 'edit = TrainedEdit.from_hub("owner/edit")' in card and "| edit | live |" in card and "trained-edit" in card
    with pytest.raises(StvError, match=r"owner/edit holds no task_vector.safetensors"):
        TaskVector.from_hub("owner/edit")


def test_a_folder_holds_what_a_push_uploads(hub, tmp_path):
    vector(**METADATA).push_to_hub("owner/name", token="writer")
    write_folder(vector(**METADATA), tmp_path / "folder", "owner/name")
    uploaded = hub.repos["owner/name"]["main"]
    assert {path.name for path in (tmp_path / "folder").iterdir()} == set(uploaded)
    assert (tmp_path / "folder/README.md").read_bytes() == uploaded["README.md"]
    assert_same(TaskVector.load(tmp_path / "folder" / FILE), TaskVector.from_hub("owner/name"))


def test_the_card_claims_nothing_that_the_metadata_does_not_say(tmp_path):
    write_folder(vector(model="testbed", when="prompt"), tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model is None and card.data.eval_results is None and "None" not in card.content
    assert f'TaskVector.load("{FILE}")' in card.text and "| when | prompt |" in card.text
    (tmp_path / "owner/model").mkdir(parents=True)
    write_folder(vector(model=str(tmp_path / "owner/model")), tmp_path)
    assert ModelCard.load(tmp_path / "README.md").data.base_model is None


def test_the_card_of_a_sum_tells_its_parts(tmp_path):
    write_folder(vector(dataset="shapes/a") + 0.5 * vector(dataset="shapes/b"), tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| operation | a + b |" in text
    assert "| where b is | 0.5 * a (a: shapes/b) |" in text


@pytest.mark.parametrize(
    ("repo_id", "revision", "message"),
    [
        ("owner/missing", None, "owner/missing is not on the hub or is private; check its name"),
        ("owner/empty", None, "owner/empty holds no task_vector.safetensors; name a repo"),
        ("owner/empty", "v9", "owner/empty has no revision v9; name a branch"),
        ("owner/broken", None, "The task vector of owner/broken cannot be used: .* is not a saved TaskVector"),
        ("a/b/c", None, "a/b/c is not a repo id of the hub; write it as owner/name"),
    ],
)
def test_a_repo_that_gives_no_vector_is_refused_in_one_sentence(hub, repo_id, revision, message):
    hub.repos |= {"owner/empty": {"main": {}}, "owner/broken": {"main": {FILE: b"not a tensor"}}}
    with pytest.raises(StvError, match=message) as raised:
        TaskVector.from_hub(repo_id, revision=revision)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


@pytest.mark.parametrize("status", [401, 403])
def test_a_repo_that_may_not_be_read_is_refused_in_one_sentence(hub, status):
    hub.broken = status
    with pytest.raises(StvError, match=r"owner/name is not on the hub or is private; .* `hf auth login`\.$"):
        TaskVector.from_hub("owner/name")


def test_a_repo_that_may_not_be_written_is_refused_in_one_sentence(hub):
    hub.repos["owner/name"] = {"main": {}}
    for repo_id in ("owner/name", "owner/new"):
        with pytest.raises(StvError, match=rf"^You may not write to {repo_id}; pass a token that may.*\.$"):
            vector().push_to_hub(repo_id, token="reader")
    assert hub.repos == {"owner/name": {"main": {}}}


def test_a_hub_that_cannot_be_reached_is_named_in_one_sentence(no_hub):
    begin = time.monotonic()
    for call in (vector().push_to_hub, TaskVector.from_hub):
        with pytest.raises(
            StvError, match=rf"^The hub at {no_hub} cannot be reached for owner/name.*; try again .*\.$"
        ):
            call("owner/name", token="writer")
    assert time.monotonic() - begin < 10, "its client alone would try for half a minute"


def test_what_was_pulled_once_is_there_when_the_hub_has_gone_away(hub, tmp_path, monkeypatch, request):
    vector().push_to_hub("owner/name", token="writer")
    TaskVector.from_hub("owner/name")
    monkeypatch.setenv("HF_ENDPOINT", request.getfixturevalue("no_hub"))
    assert_same(TaskVector.from_hub("owner/name"), vector())


def test_a_hub_that_is_down_is_named_in_one_sentence(hub, monkeypatch):
    hub.broken = 503
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(StvError, match=rf"^The hub at {hub.url} cannot be reached .*503.*; try again .*\.$"):
        TaskVector.from_hub("owner/name")


def test_offline_mode_is_named_in_one_sentence(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for call in (vector().push_to_hub, TaskVector.from_hub):
        with pytest.raises(StvError, match=r"^owner/name cannot be reached because HF_HUB_OFFLINE is set; unset it\.$"):
            call("owner/name")


def test_a_sum_holds_both_vectors_locations_in_order():
    a, b = vector([(2, 3), (0, 1)]), vector([(1, 5), (0, 0), (0, 1)])
    total = a + b
    assert total.locations.tolist() == [[0, 0], [0, 1], [1, 5], [2, 3]]
    torch.testing.assert_close(
        total.vectors, torch.stack([b.vectors[1], a.vectors[1] + b.vectors[2], b.vectors[0], a.vectors[0]])
    )
    assert torch.equal((b + a).vectors, total.vectors)


def test_vectors_scale_and_cancel():
    a = vector()
    for scaled in (a * 0.5, 0.5 * a):
        assert torch.equal(scaled.vectors, a.vectors / 2) and torch.equal(scaled.locations, a.locations)
    assert torch.equal((-a).vectors, -a.vectors)
    assert (a - a).vectors.eq(0).all() and (a - a).locations.tolist() == a.locations.tolist()
    torch.testing.assert_close((a + a - 2 * a).vectors, torch.zeros(2, 20))


def test_a_result_remembers_how_it_was_made(tmp_path):
    a, b = vector(**METADATA), vector(**METADATA | {"dataset": "shapes/size-0"})
    (a - b).save(tmp_path / FILE)
    made = TaskVector.load(tmp_path / FILE).metadata
    assert made["operation"] == "a - b" and made["made_from"] == [a.metadata, b.metadata]
    assert (made["model"], made["revision"], made["heads"]) == ("owner/model", "abc123", HEADS)
    assert (0.5 * a).metadata["operation"] == "0.5 * a" and (-a).metadata["made_from"] == [a.metadata]
    assert "dataset" not in made and "model" not in (a + vector()).metadata


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (vector(mode="add"), r"differ in mode \(replace and add\)"),
        (vector(dim=16), r"differ in head_dim \(20 and 16\)"),
        (vector(model="other"), r"differ in model \(owner/model and other\)"),
        (vector(heads=HEADS | {"n_layers": 9}), "differ in heads"),
    ],
)
def test_vectors_that_do_not_fit_together_are_refused(other, message):
    for combine in (TaskVector.__add__, TaskVector.__sub__):
        with pytest.raises(StvError, match=message):
            combine(vector(**METADATA), other)


def test_other_operands_are_type_errors():
    for combine in (lambda: vector() + 1, lambda: vector() - 1, lambda: vector() * vector()):
        with pytest.raises(TypeError, match="unsupported operand"):
            combine()


@pytest.mark.parametrize(
    ("locations", "mode", "message"),
    [
        ([(0, 1), (2, 3), (0, 1)], "replace", "layer 0, head 1 more than once"),
        ([(0, -1)], "replace", r"location \(0, -1\)"),
        ([(0, 1)], "multiply", "mode 'multiply'"),
        ([(0.5, 1.0)], "replace", "whole numbers as locations"),
    ],
)
def test_vectors_that_say_two_things_or_none_are_refused(locations, mode, message):
    with pytest.raises(StvError, match=message):
        vector(locations, mode)


def test_a_vector_for_another_number_of_layers_or_heads_is_refused():
    """Even where its locations exist in the model."""
    with vector(heads=HEADS).inserted(llama()):
        pass
    for other in ({"n_layers": 4}, {"n_heads": 8}, {"head_dim": 24}):
        made_for = HEADS | other
        message = ", ".join(f"{name} {size}" for name, size in made_for.items())
        with pytest.raises(StvError, match=f"made for {message}, but the model has n_layers 3, n_heads 6, head_dim 20"):
            vector(heads=made_for).check(find_heads(llama()))


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=torch.tensor([[4, 5, 6]])).logits[:, -1]


def test_one_vector_nests_in_itself_and_is_used_again_and_again():
    model, added = llama(), vector(mode="add")
    plain = logits(model)
    with (2 * added).inserted(model):
        twice = logits(model)
    for _ in range(3):
        with added.inserted(model):
            once = logits(model)
            with added.inserted(model):
                torch.testing.assert_close(logits(model), twice)
            assert torch.equal(logits(model), once)
        assert torch.equal(logits(model), plain)


def test_one_vector_serves_two_models_at_once():
    small, large = qwen2(), llama()
    fits_both = TaskVector(torch.tensor([[0, 0]]), torch.zeros(1, 20))
    with fits_both.inserted(large), pytest.raises(StvError, match="head_dim 20"), fits_both.inserted(small):
        pass
    other = llama()
    expected = logits(other)
    with fits_both.inserted(large), fits_both.inserted(other):
        assert torch.equal(logits(large), logits(other)) and not torch.equal(logits(other), expected)


def test_no_hook_outlives_an_error_in_a_nested_block():
    model, twice = llama(), vector()
    with pytest.raises(ZeroDivisionError), twice.inserted(model), twice.inserted(model):
        _ = 1 / 0
    with pytest.raises(IndexError), twice.inserted(model):
        model(input_ids=torch.tensor([[10_000]]))
    assert not any(module._forward_pre_hooks for module in model.modules())
