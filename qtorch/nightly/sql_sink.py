"""Nights in a database: typed tables with primary keys, written night by night through SQLAlchemy."""

import datetime
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qtorch.deploy.extras import needed
from qtorch.nightly.places import MANIFEST, Place
from qtorch.nightly.schema import AS_OF, KEYS, SCHEMA_VERSION, TABLES, check_version
from qtorch.nightly.store import PREFIX, Nights, Seen, fragments, history, survey

TABLE = "qtorch_"
NIGHTS = f"{TABLE}nights"
_ROWS = 10_000  # sent at once


def to_sql(nights: Nights | str | os.PathLike[str], url: str) -> list[str]:
    """Writes nights into a database.

    Its tables are ``qtorch_nights``, ``qtorch_forecasts``, ``qtorch_portfolio``, ``qtorch_backtest`` and
    ``qtorch_allocation``.

    Each night is one transaction, in which the rows of its date are replaced; a night that is there, with the same
    manifest, is left as it is. Tables that are missing are made, with the keys of `qtorch.nightly.schema.KEYS` and
    ``as_of``; and so are columns that a later version of the schema added. NaN becomes NULL.

    Args:
        nights: of `qtorch.nightly.history`, or their folder.
        url: of SQLAlchemy, such as ``postgresql+psycopg://risk@db/risk`` or ``sqlite:///risk.db``.

    Returns:
        The dates that were written, YYYY-MM-DD.

    Raises:
        ImportError: SQLAlchemy or the database's driver is not installed.
        ValueError: the database holds nights of a later version of the schema.
    """
    sa = needed("sqlalchemy", "sql", "qtorch.nightly.to_sql")
    found = nights if isinstance(nights, Nights) else history(nights)
    engine = sa.create_engine(url)
    try:
        tables = _tables(sa)
        _prepare(sa, engine, tables)
        written = []
        for night in survey(found.place, found.since, found.until):
            with engine.begin() as connection:
                if _write(sa, connection, tables, found.place, night):
                    written.append(night.day)
        return written
    finally:
        engine.dispose()


def _tables(sa: Any) -> dict[str, Any]:
    """The tables of the schema, by their names in the database."""
    metadata = sa.MetaData()
    made = {
        NIGHTS: sa.Table(
            NIGHTS,
            metadata,
            sa.Column(AS_OF, sa.Date, primary_key=True),
            sa.Column("schema_version", sa.Integer, nullable=False),
            sa.Column("manifest_sha256", sa.String(64), nullable=False),
            sa.Column("exit_code", sa.Integer, nullable=False),
            sa.Column("failed", sa.Integer, nullable=False),
            sa.Column("model", sa.String(255)),
            sa.Column("model_age", sa.Integer),
            sa.Column("seconds", sa.Double),
            sa.Column("manifest", sa.Text, nullable=False),
        )
    }
    for name, schema in TABLES.items():
        key = (AS_OF, *KEYS[name])
        fields = [schema.field(column) for column in (*key, *(each for each in schema.names if each not in key))]
        columns = [
            sa.Column(field.name, _type(sa, field, field.name in key), primary_key=field.name in key)
            for field in fields
        ]
        made[TABLE + name] = sa.Table(TABLE + name, metadata, *columns)
    return made


def _type(sa: Any, field: pa.Field, key: bool) -> Any:
    if pa.types.is_date(field.type):
        return sa.Date
    if pa.types.is_timestamp(field.type):
        return sa.DateTime
    if pa.types.is_integer(field.type):
        return sa.Integer
    if pa.types.is_floating(field.type):
        return sa.Double
    return sa.String(255) if key else sa.Text


def _prepare(sa: Any, engine: Any, tables: dict[str, Any]) -> None:
    """Makes tables and columns that are missing."""
    with engine.begin() as connection:
        inspector = sa.inspect(connection)
        there = set(inspector.get_table_names())
        if NIGHTS in there:
            last = connection.scalar(sa.select(sa.func.max(tables[NIGHTS].c.schema_version)))
            check_version(last or 0, f"the database {engine.url.render_as_string()}")
        for name, table in tables.items():
            if name not in there:
                table.create(connection)
                continue
            columns = {column["name"] for column in inspector.get_columns(name)}
            for column in table.columns:
                if column.name not in columns:
                    text = sa.schema.CreateColumn(column).compile(dialect=engine.dialect)
                    connection.execute(sa.DDL(f"ALTER TABLE {name} ADD COLUMN {text}"))


def _write(sa: Any, connection: Any, tables: dict[str, Any], place: Place, night: Seen) -> bool:
    """Puts one night's rows in the place of those of its date; False where they are there already."""
    day, about = datetime.date.fromisoformat(night.day), tables[NIGHTS]
    there = connection.scalar(sa.select(about.c.manifest_sha256).where(about.c.as_of == day))
    if there == night.manifest:
        return False
    for table in tables.values():
        connection.execute(sa.delete(table).where(table.c.as_of == day))
    row = dict(night.facts) | {
        AS_OF: day,
        "schema_version": SCHEMA_VERSION,
        "manifest_sha256": night.manifest,
        "manifest": place.read(f"{PREFIX}{night.day}/{MANIFEST}").decode(),
    }
    connection.execute(sa.insert(about), [row])
    for name in TABLES:
        for rows in _rows(place, night, name):
            connection.execute(sa.insert(tables[TABLE + name]), rows)
    return True


def _rows(place: Place, night: Seen, name: str) -> Iterator[list[dict[str, Any]]]:
    for fragment in fragments(place, [night], name):
        for batch in fragment.to_batches(schema=TABLES[name], batch_size=_ROWS):
            columns = [
                pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
                if pa.types.is_floating(column.type)
                else column
                for column in batch.columns
            ]
            if batch.num_rows:
                yield pa.RecordBatch.from_arrays(columns, schema=batch.schema).to_pylist()
