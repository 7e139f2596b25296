//! Credentials that requests are signed with, by the provider chain of AWS's own clients, and the instance's region.
//!
//! This process itself queries the instance's metadata service and never runs another program for it. That
//! distinguishes these requests from those that the rule about metadata detects.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderValue, Method, header};
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, AssumeRoleWithWebIdentityCredentialProvider, Credential,
    ECSCredentialProvider, EnvCredentialProvider, IMDSv2CredentialProvider, ProfileCredentialProvider,
    RequestSigner,
};
use reqsign_core::{
    Context, Error, HttpSend, OsEnv, ProvideCredential, ProvideCredentialDyn, Signer, StaticEnv,
};
use reqsign_file_read_tokio::TokioFileRead;
use reqsign_http_send_reqwest::ReqwestHttpSend;

use super::aws_host::{host, region_in, suffix};
use super::config::QueueConfig;
use crate::error_chain::error_chain;
use crate::http_client;

/// How long a host's metadata service may take; it answers within milliseconds or not at all.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// A signer with the identity of a queue's configuration, and the queue's region. Requests that credentials need go out
/// through `http`.
///
/// # Errors
/// No region is found, or an endpoint is not a URL.
pub(crate) async fn signer(
    config: &QueueConfig,
    http: reqwest::Client,
) -> Result<(Signer<Credential>, String)> {
    let send = Send { aws: http, metadata: metadata_client()?, sts: None };
    let context = Context::new().with_file_read(TokioFileRead).with_http_send(send.clone());
    let context = match config.environment.clone() {
        None => context.with_env(OsEnv),
        Some(envs) => context.with_env(StaticEnv { home_dir: None, envs }),
    };
    let region = match config.region.clone().or_else(|| region_in(&host(&config.url)?).map(str::to_owned)) {
        Some(region) => region,
        None => discover_region(&context).await?,
    };
    let context = context.with_http_send(Send { sts: sts_host(config, &region)?, ..send });
    let chain = Chain::new(config.profile.as_deref());
    let own = Signer::new(context.clone(), chain, RequestSigner::new("sts", &region));
    let Some(role) = &config.role_arn else {
        return Ok((own, region));
    };
    let mut provider = AssumeRoleCredentialProvider::new(role.clone(), own)
        .with_role_session_name("lapwing".to_owned())
        .with_region(region.clone())
        .with_regional_sts_endpoint();
    if let Some(id) = &config.external_id {
        provider = provider.with_external_id(id.clone());
    }
    Ok((Signer::new(context, provider, RequestSigner::new("sts", &region)), region))
}

/// The providers of credentials, in the order of AWS's own clients.
#[derive(Debug)]
struct Chain(Vec<(&'static str, Box<dyn ProvideCredentialDyn<Credential = Credential>>)>);

impl Chain {
    fn new(profile: Option<&str>) -> Self {
        let mut profiles = ProfileCredentialProvider::new();
        if let Some(name) = profile {
            profiles = profiles.with_profile(name);
        }
        Self(vec![
            ("environment", Box::new(EnvCredentialProvider::new())),
            ("profile", Box::new(profiles)),
            ("web identity", Box::new(AssumeRoleWithWebIdentityCredentialProvider::new())),
            ("container", Box::new(ECSCredentialProvider::new())),
            ("instance metadata", Box::new(IMDSv2CredentialProvider::new())),
        ])
    }
}

impl ProvideCredential for Chain {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> reqsign_core::Result<Option<Credential>> {
        let mut reasons = Vec::new();
        for (name, provider) in &self.0 {
            match provider.provide_credential_dyn(context).await {
                Ok(Some(credential)) => return Ok(Some(credential)),
                Ok(None) => {}
                Err(error) => reasons.push(format!("{name}: {}", error_chain(&error))),
            }
        }
        reasons.push(
            "attach a role to the instance, or set AWS_ACCESS_KEY_ID or AWS_PROFILE in the unit".to_owned(),
        );
        Err(Error::credential_invalid(reasons.join("; ")))
    }
}

const SILENT: &str = "the metadata service does not answer: this is no EC2 instance, or its hop limit is too low for \
                      a container (aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2)";

/// Requests that credentials need: to STS, and to the metadata services of instances and containers.
#[derive(Clone, Debug)]
struct Send {
    aws: reqwest::Client,
    metadata: reqwest::Client,
    /// Where STS is reached instead of its usual host.
    sts: Option<http::Uri>,
}

impl HttpSend for Send {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let local = request.uri().host().is_some_and(is_local);
        if local {
            let send = ReqwestHttpSend::new(self.metadata.clone()).http_send(request).await;
            return send.map_err(|error| Error::unexpected(SILENT).with_source(error).set_retryable(true));
        }
        ReqwestHttpSend::new(self.aws.clone()).http_send(self.routed(request)?).await
    }
}

impl Send {
    /// The request as it goes to STS's configured host; the host that was signed stays in the header.
    fn routed(&self, mut request: http::Request<Bytes>) -> reqsign_core::Result<http::Request<Bytes>> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        if let Some(sts) = self.sts.as_ref().filter(|_| host.starts_with("sts.")) {
            let invalid = || Error::config_invalid("sts_endpoint is not a URL");
            let mut uri = request.uri().clone().into_parts();
            uri.scheme = sts.scheme().cloned();
            uri.authority = sts.authority().cloned();
            *request.uri_mut() = http::Uri::from_parts(uri).map_err(|_| invalid())?;
            let host = HeaderValue::from_str(&host).map_err(|_| invalid())?;
            request.headers_mut().insert(header::HOST, host);
        }
        Ok(request)
    }
}

/// Whether a host is this machine or its metadata service, which need no proxy.
fn is_local(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local() || address.is_loopback(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local() || address.is_loopback() || address.is_unique_local()
        }
        Err(_) => host == "localhost",
    }
}

fn sts_host(config: &QueueConfig, region: &str) -> Result<Option<http::Uri>> {
    let url = match &config.sts_endpoint {
        Some(url) => url.clone(),
        None if config.fips => format!("https://sts-fips.{region}.{}", suffix(region)),
        None => return Ok(None),
    };
    url.parse().map(Some).context("sts_endpoint is not a URL")
}

async fn discover_region(context: &Context) -> Result<String> {
    if let Some(region) = context.env_var("AWS_REGION").or_else(|| context.env_var("AWS_DEFAULT_REGION")) {
        return Ok(region);
    }
    let endpoint = context.env_var("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let endpoint = endpoint.as_deref().unwrap_or("http://169.254.169.254").trim_end_matches('/');
    let fetch = async |method: Method, path: &str, name: &'static str, value: &str| {
        let request =
            http::Request::builder().method(method).uri(format!("{endpoint}{path}")).header(name, value);
        let answer = context.http_send_as_string(request.body(Bytes::new())?).await?;
        anyhow::ensure!(answer.status().is_success(), "it answers with status {}", answer.status());
        Ok(answer.into_body())
    };
    let found = async {
        let ttl = "x-aws-ec2-metadata-token-ttl-seconds";
        let token = fetch(Method::PUT, "/latest/api/token", ttl, "60").await?;
        fetch(Method::GET, "/latest/meta-data/placement/region", "x-aws-ec2-metadata-token", &token).await
    };
    found.await.context(
        "no region: set `region` of the queue, or AWS_REGION; the metadata service did not return one",
    )
}

fn metadata_client() -> Result<reqwest::Client> {
    http_client::builder().no_proxy().timeout(METADATA_TIMEOUT).build().context("HTTP cannot be set up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_local() {
        for (host, local) in
            [("169.254.169.254", true), ("[fd00:ec2::254]", true), ("sts.amazonaws.com", false)]
        {
            assert_eq!(is_local(host), local, "{host}");
        }
    }
}
