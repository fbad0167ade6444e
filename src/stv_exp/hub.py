"""Task vectors and trained edits on the Hugging Face Hub: a repo with one safetensors file and its model card.

`push_to_hub` and `from_hub` of these classes are the door; everything here runs without torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from stv_exp.card import Explained, card
from stv_exp.errors import StvError
from stv_exp.network import ask_hub, cache_if_offline, hub_address

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class Saved(Explained, Protocol):
    """What a push has to know."""

    def save(self, path: Path | str) -> None: ...


class OnHub:
    """Mixin for an artefact that travels."""

    noun: ClassVar[str]
    file: ClassVar[str]

    def push_to_hub(
        self: Any,
        repo_id: str,
        *,
        private: bool = False,
        revision: str | None = None,
        token: str | None = None,
        commit_message: str = "",
    ) -> str:
        """Upload this and a model card to the repo `repo_id` (owner/name) of the hub; returns the commit's url.

        A repo or branch `revision` that is missing is created; `private` concerns a new repo only. An older file and
        card in the repo are replaced. `token` defaults to the one of `hf auth login`. Raises `StvError` where the hub
        cannot be reached or does not let you write.
        """
        with _explained(repo_id, revision, writing=True):
            ask_hub()  # the client would try for half a minute
            api = _api(token)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id  # with its owner, if none given
            if revision and not revision.startswith("refs/"):  # refs/pr/1 comes from opening a pull request
                api.create_branch(repo_id, branch=revision, exist_ok=True)
        message = commit_message or f"Upload {self.noun}"
        with TemporaryDirectory() as folder:
            write_folder(self, folder, repo_id)
            with _explained(repo_id, revision, writing=True):
                done = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message)
                return done.commit_url

    @classmethod
    def from_hub(cls, repo_id: str, *, revision: str | None = None, token: str | None = None) -> Self:
        """Load what `push_to_hub` uploaded, at a branch, tag or commit `revision`; downloaded once, then cached.

        Raises `StvError` where the hub cannot be reached, or has no such repo or no such file in it.
        """
        path = download(repo_id, cls.file, revision, token)
        try:
            return cls.load(path)  # type: ignore[attr-defined]
        except StvError as error:
            raise StvError(f"The {cls.noun} of {repo_id} cannot be used: {error}") from error


def download(repo_id: str, file: str, revision: str | None = None, token: str | None = None) -> Path:
    """A file of a repo, from the cache where it is there; raises `StvError` where there is none."""
    with _explained(repo_id, revision, file=file), cache_if_offline():
        return Path(_api(token).hf_hub_download(repo_id, file, revision=revision))


def write_folder(artefact: Saved, folder: Path | str, repo_id: str | None = None) -> None:
    """Write what a push uploads: the artefact's file and `README.md`, the card.

    With `repo_id` the card shows how to load it from the hub, without it from the file.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    artefact.save(Path(folder) / artefact.file)
    card(artefact, repo_id).save(Path(folder) / "README.md")


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(hub_address(), token=token)


@contextmanager
def _explained(repo_id: str, revision: str | None, writing: bool = False, file: str = "") -> Iterator[None]:
    """Turn whatever the client raises in the block into one sentence."""
    try:
        yield
    except Exception as error:  # its HTTP library's errors too, and which library that is depends on its version
        raise StvError(_sentence(_cause(error), repo_id, revision, writing, file)) from error


def _cause(error: Exception) -> BaseException:
    """The download says "not in the cache" where the hub gave nothing; the reason is behind it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return (error.__cause__ or error) if isinstance(error, LocalEntryNotFoundError) else error


def _sentence(error: BaseException, repo_id: str, revision: str | None, writing: bool, file: str) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.OfflineModeIsEnabled) and not constants.HF_HUB_OFFLINE:
        return f"The hub at {hub_address()} cannot be reached for {repo_id}; try again when it answers."
    known = {
        errors.HFValidationError: f"{repo_id} is not a repo id of the hub; write it as owner/name.",
        errors.OfflineModeIsEnabled: f"{repo_id} cannot be reached because HF_HUB_OFFLINE is set; unset it.",
        errors.RevisionNotFoundError: f"{repo_id} has no revision {revision}; name a branch, tag or commit of it.",
        errors.RemoteEntryNotFoundError: f"{repo_id} holds no {file}; name a repo that push_to_hub has written.",
    }
    for kind, sentence in known.items():
        if isinstance(error, kind):
            return sentence
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return _refused(repo_id, writing)
    return _failed(error, status, repo_id, writing)


def _refused(repo_id: str, writing: bool) -> str:
    if writing:
        return f"You may not write to {repo_id}; pass a token that may, or log in with `hf auth login`."
    return f"{repo_id} is not on the hub or is private; check its name, or log in with `hf auth login`."


def _failed(error: BaseException, status: int, repo_id: str, writing: bool) -> str:
    reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0].rstrip(".: ")
    if status >= 500 or type(error).__module__.startswith("httpx"):  # the library httpx, or its successor httpx2
        return f"The hub at {hub_address()} cannot be reached for {repo_id} ({reason}); try again when it answers."
    return f"{repo_id} cannot be {'written' if writing else 'read'} ({reason}); mend that and try again."
