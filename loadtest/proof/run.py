"""One run against a stack that is up: accounts, load, kills, rest; and the demo made of it.

Talks to the stack through the parts beside it. It changes nothing but by HTTP requests and, where
asked to, by killing processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from loadtest import stack as stacks
from loadtest.generator import plan as plans
from loadtest.generator import webhooks
from loadtest.generator.open_loop import Health, OpenLoop
from loadtest.proof import figures, hops, load, tally
from loadtest.proof.cpu import CpuMeter
from loadtest.proof.kills import Killer
from loadtest.proof.observer import Observer
from loadtest.proof.outcomes import Ended, judge
from loadtest.verify import compare
from loadtest.verify.command import summary, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from loadtest.generator.open_loop import Shot
    from loadtest.generator.plan import Plan
    from loadtest.proof.outcomes import Judged
    from loadtest.proof.windows import Kill

KILL_AT: Final = (0.10, 0.25, 0.40, 0.55, 0.70)
"""When the roles are killed at the earliest, as shares of the sending time; a slow recovery moves
the next kill, so there is room behind the last."""

REST_WITHIN_S: Final = 60.0
_SAMPLE_S: Final = 0.5
_TELL_EVERY: Final = 10


@dataclass(frozen=True, slots=True)
class Setting:
    """How much is sent, and whether anything is killed meanwhile. `prefix` begins every key."""

    payments: int
    rate: float
    accounts: int = 1_000
    events: int = 0
    runaways: int = 0
    seed: int = 1
    kill: bool = False
    prefix: str = "demo"

    @property
    def load_s(self) -> float:
        """Return how long it takes to send the payments."""
        return self.payments / self.rate

    def plan(self) -> Plan:
        """Return the seeded plan of the payments."""
        shape = plans.Shape(
            seed=self.seed, payments=self.payments, rate=self.rate, accounts=self.accounts,
            runaways=self.runaways, prefix=self.prefix,
        )  # fmt: skip
        return plans.make(shape)

    def deliveries(self) -> list[webhooks.Delivery]:
        """Return the webhooks, spread over the same time."""
        return webhooks.make(
            self.seed, self.prefix, self.events, self.load_s, repeated=0.10, forged=0.01
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What was sent and what came of it. `begun_s` is the start of the load, epoch seconds;
    `funded` payments into the accounts came before it.
    """

    funded: int
    shots: Sequence[Shot]
    judged: Judged
    health: Health
    kills: list[Kill]
    cpu_s: dict[str, float]
    begun_s: float


class Run:
    """A run of one setting on the stack in `folder`; `say` gets progress lines."""

    def __init__(self, folder: Path, setting: Setting, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._setting = setting
        self._say = say
        self._stack = stacks.read(folder)
        self._target = self._stack.gateways[0]
        self._meter = CpuMeter()
        self._loop = OpenLoop(self._target, seed=setting.seed)
        self._observer = Observer(self._stack)
        self._killer = Killer(folder, self._loop, self._observer, self._meter, say)

    async def go(self) -> Result:
        """Do all of it, and return when everything that was accepted has ended."""
        try:
            async with self._observer:
                plan = self._setting.plan()
                ids, funding = await self._fund(plan)
                shots = load.payment_shots(self._target, plan, plan.orders, ids)
                shots += load.webhook_shots(self._target, self._stack, self._setting.deliveries())
                shots.sort(key=lambda shot: shot.at_s)
                health = await self._send(shots)
                judged = await self._rest([*shots, *funding])
        finally:
            await self._loop.close()
        return Result(
            len(funding), shots, judged, health, self._killer.kills,
            self._meter.by_role() | {"loadtest": health.cpu_s}, self._loop.started_at_s,
        )  # fmt: skip

    async def _fund(self, plan: Plan) -> tuple[list[str], list[Shot]]:
        """Open the accounts and pay into them; returns their ids and the payments."""
        ids = await load.open_accounts(self._loop, self._target, plan)
        self._say(f"opened {len(ids):,} accounts in {self._loop.health.seconds:.1f} s")
        funding = load.payment_shots(self._target, plan, plan.funding, ids)
        await self._loop.run(funding)
        paid = {reply.payment_id for reply in load.replies(funding) if reply.payment_id}
        left = await self._observer.until_ended(paid, REST_WITHIN_S)
        missing = len(left) + len(funding) - len(paid)
        if missing:
            raise stacks.NoStack(f"{missing} of {len(funding)} accounts were not funded")
        self._say(f"paid into {len(paid):,} of them from outside")
        return ids, funding

    async def _send(self, shots: Sequence[Shot]) -> Health:
        """Send everything at its time, kill meanwhile; return when all is answered and healed."""
        rate, load_s = self._setting.rate, self._setting.load_s
        self._say(f"sending {len(shots):,} requests, {rate:,.0f} payments/s for {load_s:.0f} s")
        gc.collect()
        gc.freeze()
        self._meter.begin(stacks.read(self._folder).processes)
        sampler = asyncio.create_task(self._sample(len(self._observer.ends)))
        sending = asyncio.create_task(self._loop.run(shots))
        await asyncio.sleep(0)
        try:
            if self._setting.kill:
                await self._killer.run([share * load_s for share in KILL_AT])
            return await sending
        finally:
            for task in (sampler, sending):
                task.cancel()
            await asyncio.gather(sampler, sending, return_exceptions=True)
            gc.unfreeze()

    async def _sample(self, before: int) -> None:
        looks = 0
        while True:
            await asyncio.sleep(_SAMPLE_S)
            self._look()
            looks += 1
            if looks % _TELL_EVERY == 0:
                ended = len(self._observer.ends) - before
                sent, waiting = self._loop.sent, self._loop.unanswered
                self._say(f"  sent {sent:,}, unanswered {waiting:,}, payments ended {ended:,}")

    def _look(self) -> None:
        with contextlib.suppress(stacks.NoStack):
            self._meter.look(stacks.read(self._folder).processes)

    async def _rest(self, shots: Sequence[Shot]) -> Judged:
        """Wait until every accepted payment has ended, then hold all of it against the plan."""
        replies = load.replies(shots)
        accepted = {reply.payment_id for reply in replies if reply.payment_id}
        waiting = time.monotonic()
        left = await self._observer.until_ended(accepted, REST_WITHIN_S)
        self._look()
        waited = time.monotonic() - waiting
        self._say(f"at rest {waited:.1f} s after the last answer, {len(left)} payments in flight")
        begun_s = self._loop.started_at_s
        ends = {
            payment_id: Ended(end.status, end.reason, end.seen_at_s - begun_s)
            for payment_id, end in self._observer.ends.items()
        }
        return judge(replies, ends)


async def demo(folder: Path, setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the setting on the stack in `folder`, verify it, and return `demo.json`."""
    started = time.monotonic()
    result = await Run(folder, setting, say).go()
    judged = result.judged
    say("comparing log, ledger, views and lake")
    evidence, verdicts = await verify(stacks.read(folder))
    told, sent = compare.counts(evidence.tables), load.delivered(result.shots)
    clients = [
        (payment_id, result.begun_s + sent_s, result.begun_s + seen_s)
        for payment_id, (sent_s, seen_s) in judged.by_id.items()
    ]
    proof = tally.observed(told, judged, sent)
    proof.append(tally.killed(result.kills, setting.load_s, wanted=len(KILL_AT) * setting.kill))
    measured = figures.Measured(
        seconds=time.monotonic() - started,
        counts=tally.counts(told, judged),
        lives=judged.lives,
        offered=setting.payments,
        offered_s=max((sent_s for sent_s, _ in judged.lives), default=setting.load_s),
        kills=result.kills,
        cpu_s=result.cpu_s,
        per_hop_ms=hops.per_hop_ms(evidence.tables, clients),
        generator=tally.generator(result.health, len(result.shots)),
        invariants=[*proof, *tally.of_verdicts(verdicts)],
        surprises=judged.surprises,
        verify=summary(evidence.unsettled, verdicts),
        setting=asdict(setting) | {"funded": result.funded},
    )
    return figures.document(measured)
