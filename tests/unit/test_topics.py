"""Every topic has a row, and every row says who owns it and how long it is kept."""

from schemas.topics import TASKS, TOPICS, changelog, dead_letters


def test_the_contracts_topics_exist():
    for name in (
        "payments.requests webhooks.received webhooks.quarantine ledger.commands ledger.events"
        " payments.events gateway.replies"
    ).split():
        assert TOPICS[name].subject == f"{name}-value"


def test_every_topic_has_owner_retention_and_residency():
    for topic in TOPICS.values():
        assert topic.owner
        assert topic.residency
        assert topic.key
        assert topic.retention_ms == -1 if topic.compacted else topic.retention_ms > 0


def test_only_changelogs_are_compacted():
    compacted = {topic.name for topic in TOPICS.values() if topic.compacted}
    assert compacted == {changelog(task) for task in TASKS}
    assert TOPICS[changelog("payments")].kafka_config()["cleanup.policy"] == "compact"


def test_dead_letters_keep_raw_bytes_longer_than_their_source():
    for name in ("payments.requests", "ledger.commands", "ledger.events", "webhooks.received"):
        letters = TOPICS[dead_letters(name)]
        assert letters.subject is None
        assert letters.retention_ms > TOPICS[name].retention_ms
        assert letters.kafka_config()["retention.ms"] == str(letters.retention_ms)
