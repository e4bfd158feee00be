"""Verbs of the sign-in with an identity provider: login, logout."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.context import Cli, verb

if TYPE_CHECKING:
    from attestry.client.sign_in.held import HeldSignIns, SignIn
    from attestry.client.sign_in.settings import SignInSettings


class TokenUse(StrEnum):
    """The token that goes to the registry."""

    ACCESS = "access"
    ID = "id"


_ApiUrl = Annotated[
    str, typer.Option("--api-url", metavar="URL", envvar="ATTESTRY_API_URL", help="Address of the registry; by default, the latest.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app)
    def login(
        cli: Cli,
        api_url: _ApiUrl = "",
        issuer: Annotated[str, typer.Option("--issuer", metavar="URL", envvar="ATTESTRY_ISSUER", help="The identity provider.")] = "",
        client_id: Annotated[str, typer.Option("--client-id", metavar="ID", envvar="ATTESTRY_CLIENT_ID", help="Its public client.")] = "",
        scopes: Annotated[
            list[str] | None, typer.Option("--scope", envvar="ATTESTRY_SCOPES", help="What to ask for besides openid; repeatable.")
        ] = None,
        token: Annotated[TokenUse | None, typer.Option("--token", envvar="ATTESTRY_TOKEN_USE", help="Which one the registry gets.")] = None,
        port: Annotated[
            int | None, typer.Option("--port", min=0, max=65535, help="Where the browser hands the code over; 0 for any free one.")
        ] = None,
        no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address to open instead of opening it.")] = False,
    ) -> None:
        """Sign in with your company's identity provider, in the browser. Once told, how is remembered for the registry.

        The tokens stay in a folder of yours; the command line and the SDK send them to this registry alone, and refresh them by themselves.
        """
        from attestry.client.sign_in.flow import sign_in
        from attestry.client.sign_in.held import HeldSignIns

        held = HeldSignIns()
        settings = _settings(held, api_url, issuer, client_id, scopes, token, port)
        made = sign_in(settings, held, lambda url: _show(cli, url, opens=not no_browser))
        cli.show(_document(made), lambda _: told(made))
        for name in ("ATTESTRY_TOKEN", "AWS_PROFILE"):
            if os.environ.get(name):
                cli.say(f"{name} is set, and comes before this sign-in: unset it to act as who signed in")

    @verb(app)
    def logout(cli: Cli, api_url: _ApiUrl = "") -> None:
        """Sign out: have the provider revoke the refresh token where it can, and delete what is kept here."""
        from attestry.client.sign_in.flow import sign_out
        from attestry.client.sign_in.held import HeldSignIns

        held = HeldSignIns()
        url = api_url or next(reversed(held.signed_in()), "")
        before, revoked = sign_out(held, url) if url else (None, False)
        if before is None:
            cli.show({"api_url": url, "signed_out": False, "revoked": False}, lambda _: "nobody is signed in")
            return
        rest = "the provider has revoked the refresh token" if revoked else "the provider has revoked nothing: what it gave ends by itself"
        document = {"api_url": before.settings.api_url, "signed_out": True, "revoked": revoked}
        cli.show(document, lambda _: f"{before.name} is signed out of {before.settings.api_url}; {rest}")


def told(sign_in: SignIn) -> str:
    """Return in a sentence who is signed in where, and until when."""
    rest = "and refreshed by itself" if sign_in.refresh else "then attestry login again"
    settings = sign_in.settings
    return f"{sign_in.name} is signed in to {settings.api_url} by {settings.issuer}, until {_time(sign_in.ends_at)}, {rest}"


def _settings(
    held: HeldSignIns, api_url: str, issuer: str, client_id: str, scopes: list[str] | None, token: TokenUse | None, port: int | None
) -> SignInSettings:
    from attestry.client.sign_in.settings import DEFAULT_PORT, DEFAULT_SCOPES, SignInSettings

    url = api_url or held.latest()
    if not url:
        raise typer.BadParameter("name the registry: --api-url URL, or ATTESTRY_API_URL")
    known = held.settings(url)
    if known is not None and issuer and issuer != known.issuer:
        # What is known of one provider says nothing of another one.
        known = None
    if not (issuer or known) or not (client_id or known):
        raise typer.BadParameter("name the identity provider and its client: --issuer URL --client-id ID; attestry remembers them")
    return SignInSettings.of(
        url,
        issuer or (known.issuer if known else ""),
        client_id or (known.client_id if known else ""),
        scopes=scopes or (known.scopes if known else DEFAULT_SCOPES),
        token_use=token.value if token else known.token_use if known else TokenUse.ACCESS.value,
        port=port if port is not None else known.port if known else DEFAULT_PORT,
    )


def _show(cli: Cli, url: str, *, opens: bool) -> None:
    """Open the address in a browser, and print it: it holds no secret that is worth anything without what this process keeps."""
    import webbrowser

    opened = opens and webbrowser.open(url)
    # On standard error with --json too: nobody could sign in without it.
    start = "your browser opens; if it does not, sign in at" if opened else "sign in at"
    cli.err.print(f"{start}\n{url}", markup=False, soft_wrap=True)


def _document(sign_in: SignIn) -> dict[str, Any]:
    settings = sign_in.settings
    return {
        "api_url": settings.api_url,
        "issuer": settings.issuer,
        "client_id": settings.client_id,
        "token_use": settings.token_use,
        "subject": sign_in.subject,
        "name": sign_in.name,
        "until": _time(sign_in.ends_at),
        "refreshes": bool(sign_in.refresh),
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
