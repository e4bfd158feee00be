"""People who sign in with the company's identity provider, or with a password of their own: a Cognito user pool, where it is asked for.

Nobody signs themselves up. A group `<prefix>-<role>` stands for a role of the registry: whoever runs the pool puts people into it, and
grants narrow what it lets them. SAML goes through the pool: the deployment names the provider's metadata, and people sign in there.
"""

from __future__ import annotations

from typing import Any

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_cognito as cognito
from constructs import Construct

from infra.config import Config

ALIAS = "pool"
SAML = "saml"
ROLES = ("admin", "approver", "auditor", "consumer", "deployer", "scientist", "validator")
CALLBACK = "http://localhost:8765/"
"""Where the command line waits for the code while somebody signs in in a browser on the same machine."""


class UserPool(Construct):
    """The pool and the client that the command line signs in by.

    Attributes:
        pool: the pool.
        client: the client; it has no secret, so a code is worth nothing without the verifier of RFC 7636 (PKCE).
        domain: where people sign in.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config) -> None:
        super().__init__(scope, construct_id)
        self._prefix = config.prefix
        self.pool = cognito.UserPool(
            self,
            "Pool",
            user_pool_name=config.prefix,
            self_sign_up_enabled=False,
            sign_in_aliases=cognito.SignInAliases(username=True),
            sign_in_case_sensitive=False,
            mfa=cognito.Mfa.REQUIRED,
            mfa_second_factor=cognito.MfaSecondFactor(otp=True, sms=False),
            password_policy=cognito.PasswordPolicy(
                min_length=14,
                require_digits=True,
                require_lowercase=True,
                require_symbols=True,
                require_uppercase=True,
                temp_password_validity=Duration.days(2),
            ),
            account_recovery=cognito.AccountRecovery.NONE,
            feature_plan=cognito.FeaturePlan.PLUS,
            standard_threat_protection_mode=cognito.StandardThreatProtectionMode.FULL_FUNCTION,
            deletion_protection=config.deletion_protection,
            removal_policy=RemovalPolicy.RETAIN if config.deletion_protection else RemovalPolicy.DESTROY,
        )
        for role in ROLES:
            told = f"Act as {role} in the registry, wherever no grant says otherwise"
            cognito.UserPoolGroup(self, role.capitalize(), user_pool=self.pool, group_name=self._group(role), description=told)
        providers = [cognito.UserPoolClientIdentityProvider.COGNITO]
        saml = self._add_saml(config.saml_metadata_url) if config.saml_metadata_url else None
        if saml is not None:
            providers = [cognito.UserPoolClientIdentityProvider.custom(SAML)]
        self.client = self.pool.add_client(
            "CommandLine",
            generate_secret=False,
            auth_flows=cognito.AuthFlow(),
            o_auth=cognito.OAuthSettings(
                flows=cognito.OAuthFlows(authorization_code_grant=True), scopes=[cognito.OAuthScope.OPENID], callback_urls=[CALLBACK]
            ),
            supported_identity_providers=providers,
            access_token_validity=Duration.hours(1),
            refresh_token_validity=Duration.hours(8),
            enable_token_revocation=True,
            prevent_user_existence_errors=True,
        )
        if saml is not None:
            self.client.node.add_dependency(saml)
        self.domain = self.pool.add_domain(
            "Domain", cognito_domain=cognito.CognitoDomainOptions(domain_prefix=f"{config.prefix}-{Aws.ACCOUNT_ID}")
        )

    def issuer(self) -> dict[str, Any]:
        """Return the pool as the authorizer's setting names an issuer."""
        return {
            "alias": ALIAS,
            "issuer": f"https://cognito-idp.{Aws.REGION}.{Aws.URL_SUFFIX}/{self.pool.user_pool_id}",
            "audiences": [self.client.user_pool_client_id],
            "audience_claim": "client_id",
            "token_use": "access",
            "groups_claim": "cognito:groups",
            "roles": {self._group(role): role for role in ROLES},
        }

    def _group(self, role: str) -> str:
        return f"{self._prefix}-{role}"

    def _add_saml(self, url: str) -> cognito.UserPoolIdentityProviderSaml:
        return cognito.UserPoolIdentityProviderSaml(
            self, "Saml", user_pool=self.pool, name=SAML, metadata=cognito.UserPoolIdentityProviderSamlMetadata.url(url)
        )
