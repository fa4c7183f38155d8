"""`qtorch history`: what nights have forecast; joins old nights, removes older ones, sends them on."""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

_TABLES = ("forecasts", "portfolio", "backtest", "allocation")


def parser() -> ArgumentParser:
    """Of `qtorch history`."""
    found = ArgumentParser(
        prog="qtorch history",
        description="Tells what the nights of an output folder or an object store have forecast.",
        epilog="examples:\n  qtorch history nights --table forecasts --since 2026-01-01 > forecasts.csv\n"
        "  qtorch history nights --sql 'select as_of, max(value_at_risk) from forecasts group by 1'\n"
        "  qtorch history nights --compact\n  qtorch history nights --retain '730 days' --dry_run\n\n"
        "exit codes:\n  0  done\n  2  unusable arguments or nights, or an extra is missing",
        formatter_class=RawDescriptionHelpFormatter,
    )
    found.add_argument("where", metavar="DIR", help="the output folder, or a URL such as s3://bucket/nights")
    one = found.add_mutually_exclusive_group()
    one.add_argument("--table", choices=_TABLES, help="print it as CSV; without an option the nights are listed")
    one.add_argument("--sql", metavar="QUERY", help="print what DuckDB finds, as CSV (extra duckdb)")
    one.add_argument("--compact", action="store_true", help="join the nights of each month before this one")
    one.add_argument("--retain", metavar="KEEP", help="remove all but so many nights, or a time such as '730 days'")
    one.add_argument("--send", metavar="URL", help="send all nights to an object store or a database")
    found.add_argument("--since", metavar="DATE", help="YYYY-MM-DD, the first night; of --table, --sql and the list")
    found.add_argument("--until", metavar="DATE", help="YYYY-MM-DD, the last")
    found.add_argument("--before", metavar="DATE", help="of --compact: nights before YYYY-MM-DD are joined")
    found.add_argument("--dry_run", action="store_true", help="of --retain: only say what would go")
    return found


def run(parsed: Namespace) -> int:
    """Does what the options ask; says in one line what went wrong."""
    from qtorch.nightly import compact, history, retain
    from qtorch.nightly.sinks import send_all

    try:
        if parsed.compact:
            print("\n".join(map(str, compact(parsed.where, before=parsed.before))) or "nothing to join")
        elif parsed.retain is not None:
            keep = int(parsed.retain) if parsed.retain.isdecimal() else parsed.retain
            print(retain(parsed.where, keep=keep, dry_run=parsed.dry_run))
        elif parsed.send is not None:
            print(f"{send_all(parsed.where, parsed.send, print)} nights were new to it")
        else:
            found = history(parsed.where, since=parsed.since, until=parsed.until)
            if parsed.sql is not None:
                found.sql(parsed.sql).to_csv(sys.stdout, index=False)
            elif parsed.table is not None:
                getattr(found, parsed.table).to_pandas().to_csv(sys.stdout, index=False)
            else:
                print(found.nights.to_string())
    except (ImportError, ValueError) as error:
        print(f"qtorch history: {error}", file=sys.stderr)
        return 2
    return 0
