//! Names of AWS hosts, and the regions in them.

/// The host of an HTTP URL, with its port; `None` if the text is not one.
pub(crate) fn host(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = url.host_str()?.to_owned();
    Some(url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
}

/// The region that a host of AWS names.
pub(crate) fn region_in(host: &str) -> Option<&str> {
    host.split('.').find(|label| {
        let mut parts = label.rsplit('-');
        let number =
            parts.next().is_some_and(|part| part.len() == 1 && part.bytes().all(|b| b.is_ascii_digit()));
        let words: Vec<_> = parts.collect();
        number
            && words.len() >= 2
            && words.iter().all(|part| part.len() >= 2 && part.bytes().all(|b| b.is_ascii_lowercase()))
    })
}

/// The suffix of a region's host names.
pub(crate) fn suffix(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "amazonaws.com.cn",
        _ if region.starts_with("us-iso-") => "c2s.ic.gov",
        _ if region.starts_with("us-isob-") => "sc2s.sgov.gov",
        _ => "amazonaws.com",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_found_in_hosts() {
        for (host, region) in [
            ("sqs.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("us-gov-west-1.queue.amazonaws.com", Some("us-gov-west-1")),
            ("vpce-0a1b-2c3d.sqs.ap-southeast-2.vpce.amazonaws.com", Some("ap-southeast-2")),
            ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("queue.amazonaws.com", None),
            ("127.0.0.1:5000", None),
        ] {
            assert_eq!(region_in(host), region, "{host}");
        }
    }
}
