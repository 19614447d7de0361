"""Who a server is."""

from __future__ import annotations

from attrs import define


@define
class Settings:
    """Who this server is."""

    cluster_name: str
    server_name: str
    expect: int
    election_label: str
    preempt: bool = False
