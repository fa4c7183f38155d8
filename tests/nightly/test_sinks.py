"""Nights in a real object store and real databases; needs the extras of `make test-store`."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from qtorch.nightly import SinkError, compact, history, publish, retain, to_sql
from qtorch.nightly.schema import KEYS, TABLES
from qtorch.nightly.sinks import send
from tests.nightly.conftest import quiet
from tests.nightly.nights import write_night, write_nights

pytestmark = pytest.mark.store


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket in a server that speaks S3."""
    pytest.importorskip("moto")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", "mine")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patched.setenv("AWS_DEFAULT_REGION", "eu-west-2")
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(
            Bucket="risk", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"}
        )
        yield f"s3://risk/nights?endpoint_override={host}:{port}&scheme=http"
    server.stop()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """The URL of a database in a server of its own."""
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg")
    programs = Path(found).resolve().parent
    folder = Path("/tmp") / f"qtorch-postgres-{os.getpid()}"
    folder.mkdir()
    user = {}
    if os.geteuid() == 0:  # which PostgreSQL refuses to be run by
        shutil.chown(folder, "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "risk", "-A", "trust", "-N"],
        check=True,
        capture_output=True,
        cwd="/",
        **user,
    )
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"],
        stderr=subprocess.DEVNULL,
        cwd="/",
        **user,
    )
    try:
        for _ in range(100):
            if not subprocess.run(
                [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False
            ).returncode:
                break
            time.sleep(0.1)
        yield f"postgresql+psycopg://risk@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    pytest.importorskip("sqlalchemy")
    return f"sqlite:///{tmp_path}/risk.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


def test_an_object_store_has_the_nights(bucket, tmp_path):
    output = write_nights(tmp_path)
    for night in sorted(output.glob("as_of=*")):
        send(night, [bucket], quiet)
        assert not publish(night, bucket)
    for _ in range(2):
        for name in TABLES:
            there, here = (getattr(history(place), name).to_pandas() for place in (bucket, output))
            pd.testing.assert_frame_equal(there, here)
        compact(bucket)
    assert history(bucket).nights["joined"].sum() == 5
    assert retain(bucket, keep=4).kept == 4
    left = history(bucket).forecasts.to_pandas()
    whole = history(output).forecasts.to_pandas()
    pd.testing.assert_frame_equal(left, whole[whole["as_of"] >= "2026-02-02"].reset_index(drop=True))
    with pytest.raises(SinkError, match=r"is whole in .* but was not sent to s3://absent"):
        send(night, [bucket.replace("risk", "absent")], quiet)


def test_a_database_has_the_nights(database, tmp_path):
    import sqlalchemy as sa

    output = write_nights(tmp_path / "out")
    compact(output)
    assert len(to_sql(output, database)) == 7
    assert to_sql(output, database) == []
    engine = sa.create_engine(database)
    for name in KEYS:
        there = pd.read_sql_table(f"qtorch_{name}", engine, parse_dates=["as_of", "last_price"])
        here = getattr(history(output), name).to_pandas()
        by = ["as_of", *KEYS[name]]
        there, here = (x.sort_values(by, ignore_index=True)[here.columns] for x in (there, here))
        pd.testing.assert_frame_equal(there, here, check_dtype=False)
        assert set(sa.inspect(engine).get_pk_constraint(f"qtorch_{name}")["constrained_columns"]) == set(by)
    with engine.begin() as connection:
        assert connection.scalar(sa.text("select count(*) from qtorch_forecasts where value_at_risk is null")) == 14
    # A night that is run again takes the place of its rows; one that fails in the midst leaves them.
    night = write_night(output, "2026-03-03", value=0.5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("qtorch.nightly.sql_sink._rows", lambda *_: (_ for _ in ()).throw(OSError("the disk")))
        with pytest.raises(SinkError, match="the disk"):
            send(night, [database], quiet)
    largest = sa.text("select max(value_at_risk), count(*) from qtorch_forecasts where as_of = '2026-03-03'")
    with engine.begin() as connection:
        assert connection.execute(largest).one() == (0.14, 4)
    send(night, [database], quiet)
    with engine.begin() as connection:
        assert connection.execute(largest).one() == (1.0, 4)
        connection.execute(sa.text("alter table qtorch_forecasts drop column epistemic_share"))
    send(write_night(output, "2026-03-04"), [database], quiet)  # makes the column anew
    assert "epistemic_share" in {each["name"] for each in sa.inspect(engine).get_columns("qtorch_forecasts")}
    with engine.begin() as connection:
        connection.execute(sa.text("update qtorch_nights set schema_version = 9"))
    with pytest.raises(ValueError, match="schema version 9"):
        to_sql(output, database)
    with engine.begin() as connection:
        for name in ("nights", *TABLES):
            connection.execute(sa.text(f"drop table qtorch_{name}"))
    engine.dispose()


def test_queries_of_duckdb(tmp_path):
    pytest.importorskip("duckdb")
    output = write_nights(tmp_path)
    query = "select as_of, max(value_at_risk) v from forecasts join nights using (as_of) "
    query += "where as_of >= '2026-02-02' group by 1"
    before = history(output).sql(query + " order by 1")
    assert before["v"].round(6).tolist() == [0.08, 0.1, 0.12, 0.14]
    compact(output)
    pd.testing.assert_frame_equal(history(output).sql(query + " order by 1"), before)
