"""A push of more files than the Hub takes in one commit: several on a pull request's branch, then one merge."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from ...errors import UserError
from .client import Refused
from .dataset import Changes
from .repository import KIND, State, full_name

if TYPE_CHECKING:
    from huggingface_hub import DiscussionWithDetails

    from .hub import HubPush


def merge_in_parts(push: HubPush, base: State, size: int) -> None:
    """Bring a branch from ``base`` to the dataset by a pull request: the branch moves once, from whole to whole.

    The pull request of a push that was killed is found by its title, and gone on with.

    Args:
        push: the push.
        base: what the branch holds.
        size: files that the Hub takes in one commit.

    Raises:
        Refused: the branch is no longer at ``base``.
        UserError: the pull request does not come to hold the dataset, or it would be merged elsewhere.
    """
    request = _PullRequest(push, base)
    changes = push.compare(request.state())
    for _ in range(changes.operations // size + 2):
        if not changes:
            request.merge()
            return
        request.add(changes.part(size))
        changes = push.compare(request.state())
    raise UserError(
        f"a pull request does not hold what was committed to it; {changes.operations} files differ",
        where=request.url,
        next_step=f"close it, then: {push.client.retries.again}",
    )


class _PullRequest:
    """The pull request by which a push changes one state of a branch; its first commit opens it."""

    def __init__(self, push: HubPush, base: State) -> None:
        self.push, self.repo, self.base = push, push.repo, base
        self.api, self.client = push.api, push.client
        self.title = f"{push.title}: {push.branch} from {str(base.head)[:12]}"
        self.number = self.client("looking for a pull request", self.find)  # 0 before it is opened
        if self.number:
            self.check_target()

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.repo.url}/discussions/{self.number}"

    @property
    def revision(self) -> str:
        """Name of its branch."""
        return f"refs/pr/{self.number}"

    def find(self) -> int:
        """Return the number of ours, if an earlier try opened it."""
        user = self.api.whoami(cache=True)["name"]
        found = self.api.get_repo_discussions(
            self.repo.name, author=user, discussion_type="pull_request", discussion_status="open", **KIND
        )
        return next((int(one.num) for one in found if one.title == self.title and one.author == user), 0)

    def state(self) -> State:
        """Return what its branch holds; before it is opened, what the branch that it is for holds."""
        return self.repo.state(self.repo.head(self.revision)) if self.number else self.base

    def add(self, changes: Changes) -> None:
        """Add a commit.

        Raises:
            Refused: a branch has moved.
        """
        if self.number:
            self.push.upload(changes.moved, self.revision)
            self.push.commit_to(self.revision, changes, self.repo.head(self.revision))
            return
        branch = self.push.branch
        self.push.upload(changes.moved, branch)
        operations = self.push.operations(changes)

        def once() -> int:
            return self.find() or self.repo.commit(operations, self.title, branch, self.base.head, propose=True)

        self.number = self.client("the pull request", once, passing={409, 412})
        self.check_target()

    def check_target(self) -> None:
        """Close it if it would be merged into another branch.

        Raises:
            UserError: it would.
        """
        if self.details().target_branch != full_name(self.push.branch):
            self.set_status("closed", "it would be merged into another branch")
            raise UserError(
                "the push has more files than the Hub takes in one commit, and several it merges into main alone",
                where=self.repo.url,
                next_step="push without --revision",
            )

    def merge(self) -> None:
        """Merge it.

        Raises:
            Refused: the branch is not where it was; by our merge, it may be, whose answer was lost.
        """
        if self.details().status == "draft":
            self.set_status("open", "complete")

        def once() -> None:
            if self.repo.head(self.push.branch) != self.base.head:
                raise Refused
            self.api.merge_pull_request(self.repo.name, self.number, **KIND)

        try:
            self.client("merging the pull request", once, passing={409, 412})
        except Refused:
            if self.details().status == "open":
                self.set_status("closed", "the branch has moved; another one starts from where it is now")
            raise

    def details(self) -> DiscussionWithDetails:
        """Return what the Hub knows of it."""
        read = partial(self.api.get_discussion_details, self.repo.name, self.number, **KIND)
        return self.client("reading the pull request", read)

    def set_status(self, status: Literal["open", "closed"], why: str) -> None:
        """Close it unmerged, or open a draft."""
        change = partial(self.api.change_discussion_status, self.repo.name, self.number, status, comment=why, **KIND)
        self.client("changing the pull request", change)
