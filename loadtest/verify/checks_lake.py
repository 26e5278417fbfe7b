"""What must hold of the lake: bronze is the log. Pure data, one check a topic."""

from __future__ import annotations

from loadtest.verify.checks import Check
from loadtest.verify.frames import UNDECODED, bronze_columns, bronze_name, rejects_name, table_name
from schemas.topics import TOPICS


def lake_check(topic: str) -> Check:
    """Compare a topic with its bronze table: the same records, each once, field by field.

    Of a compacted topic the log keeps only the newest record of a key, the lake all of them.
    """
    log, bronze, rejects = table_name(topic), bronze_name(topic), rejects_name(topic)
    undecoded = f"l.{UNDECODED}" if TOPICS[topic].landing == "decoded" else "false"
    differs = " or ".join(
        f'l."{column}" is distinct from b."{column}"'
        for column in bronze_columns(topic)
        if column not in {"_partition", "_offset"}
    )
    extra = (
        ""
        if TOPICS[topic].compacted
        else f"""
        union all
        select b._partition, b._offset, 'not in the log'
          from {bronze} b
          join bounds o on o.topic = '{topic}' and o.partition = b._partition
          left join {log} l on l._partition = b._partition and l._offset = b._offset
         where l._offset is null and b._offset >= o.first and b._offset < o.cut"""
    )
    return Check(
        f"lake.{topic}",
        f"bronze holds every committed record of {topic} exactly once, with the same content",
        f"select count(*) from {log} where old",
        f"""
        select l._partition, l._offset, 'missing' as difference
          from {log} l
          left join {bronze} b on b._partition = l._partition and b._offset = l._offset
          left join {rejects} r on r.partition = l._partition and r.offset = l._offset
         where l.old and case when {undecoded} then r.offset is null else b._offset is null end
        union all
        select b._partition, b._offset, 'content differs'
          from {log} l join {bronze} b on b._partition = l._partition and b._offset = l._offset
         where {differs}
        union all
        select _partition, _offset, 'more than once'
          from (select _partition, _offset from {bronze}
                union all select partition, "offset" from {rejects})
         group by _partition, _offset having count(*) > 1{extra}""",
    )  # fmt: skip
