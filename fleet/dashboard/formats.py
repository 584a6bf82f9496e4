"""Figures as people read them; what is not known is a dash, never a zero."""

from __future__ import annotations

from datetime import datetime

from fleet.dashboard.measures import moment

UNKNOWN = "–"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units: `42s`, `12m 03s`, `1h 05m`, `2d 03h`."""
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02d}h"


def roughly(seconds: float) -> str:
    """Return an estimate without false precision: `under a minute`, `about 14m`, `about 1h 05m`."""
    if seconds < 60:
        return "under a minute"
    minutes = round(seconds / 60)
    return "about " + (f"{minutes}m" if seconds < 3570 else duration(minutes * 60))


def clock(seconds: float | None) -> str:
    """Return a running time of constant width: `0:42`, `12:03`, `1:05:09`."""
    if seconds is None:
        return UNKNOWN
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def size(count: float | None) -> str:
    """Return a size in bytes, KB, MB or GB of 1024."""
    if count is None:
        return UNKNOWN
    if count < 1024:
        return f"{count:.0f} B"
    if count < 1024**3:
        return f"{count / 1024:.1f} KB" if count < 1024**2 else f"{count / 1024**2:.1f} MB"
    return f"{count / 1024**3:.1f} GB"


def money(dollars: float | None) -> str:
    """Return an amount in US dollars."""
    if dollars is None:
        return UNKNOWN
    return f"${dollars:,.2f}" if dollars >= 0.01 or dollars == 0 else f"${dollars:.4f}"


def amount(count: float | None) -> str:
    """Return a large count: `812`, `45.3 k`, `1.2 M`."""
    if count is None:
        return UNKNOWN
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / (1e3 if unit == 'k' else limit):.1f} {unit}"
    return f"{count:,.0f}"


def percent(share: float | None) -> str:
    """Return a share of 0 to 1 as a whole percentage."""
    return UNKNOWN if share is None else f"{100 * share:.0f} %"


def rate(per_hour: float) -> str:
    """Return a speed: `7.6 evals/h`, `67 evals/h`."""
    return f"{per_hour:.0f} evals/h" if per_hour >= 10 else f"{per_hour:.1f} evals/h"


def local_time(text: str | None, now: datetime | None = None) -> str:
    """Return a time of the journal on this machine's clock: `14:32`, or `Nov 21 14:32` on another day."""
    when = moment(text)
    if when is None:
        return UNKNOWN
    here = when.astimezone()
    today = now.astimezone().date() if now is not None else here.date()
    return here.strftime("%H:%M") if here.date() == today else here.strftime("%b %d %H:%M")


def counted(count: int, noun: str) -> str:
    """Return `1 task`, `3 tasks`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
