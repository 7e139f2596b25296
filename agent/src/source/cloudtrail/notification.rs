//! The message of a queue: which objects of S3 are new. S3 sends it directly, through SNS or through EventBridge;
//! CloudTrail sends its own form through SNS.

use percent_encoding::percent_decode_str;
use serde_json::Value as Json;

/// Most objects that one message may name; S3 names one, CloudTrail a handful.
const OBJECTS_MAX: usize = 1_000;
/// Deepest nesting of envelopes: EventBridge in SNS in SNS is beyond any usual setup.
const ENVELOPES_MAX: usize = 3;

/// A new object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its bucket.
    pub(crate) bucket: String,
    /// Its key, decoded.
    pub(crate) key: String,
    /// The bucket's region, if the message has it.
    pub(crate) region: Option<String>,
}

/// The objects that a message announces; none if it announces nothing to read, such as S3's test of the queue.
///
/// # Errors
/// The message has no known form.
pub(crate) fn objects(body: &str) -> Result<Vec<Object>, String> {
    let objects = objects_of(body, 0)
        .ok_or("its message is not a notification from S3, SNS, EventBridge or CloudTrail")?;
    match objects.len() {
        0..=OBJECTS_MAX => Ok(objects),
        many => Err(format!("its message names {many} objects, more than {OBJECTS_MAX}")),
    }
}

fn objects_of(body: &str, envelopes: usize) -> Option<Vec<Object>> {
    if body.trim() == "CloudTrail validation message." {
        return Some(Vec::new());
    }
    let json: Json = serde_json::from_str(body).ok()?;
    let text = |pointer: &str| json.pointer(pointer).and_then(Json::as_str);
    if text("/Type").is_some_and(|kind| kind != "Notification") || text("/Event") == Some("s3:TestEvent") {
        return Some(Vec::new());
    }
    if text("/Type").is_some() && envelopes < ENVELOPES_MAX {
        return objects_of(text("/Message")?, envelopes + 1);
    }
    if let Some(records) = json.get("Records").and_then(Json::as_array) {
        return records
            .iter()
            .map(of_s3)
            .collect::<Option<Vec<_>>>()
            .map(|found| found.into_iter().flatten().collect());
    }
    if let Some(bucket) = text("/s3Bucket") {
        let keys = json.get("s3ObjectKey")?.as_array()?.iter().map(Json::as_str);
        return keys.map(|key| object(bucket, key?, None)).collect();
    }
    if text("/source") == Some("aws.s3") {
        let created = text("/detail-type") == Some("Object Created");
        let named = object(text("/detail/bucket/name")?, text("/detail/object/key")?, text("/region"))?;
        return Some(created.then_some(named).into_iter().collect());
    }
    None
}

/// The object of one record of S3's own form, if it is a new one; keys are encoded there as in a form.
fn of_s3(record: &Json) -> Option<Option<Object>> {
    let text = |pointer: &str| record.pointer(pointer).and_then(Json::as_str);
    if !text("/eventName")?.trim_start_matches("s3:").starts_with("ObjectCreated:") {
        return Some(None);
    }
    let key = text("/s3/object/key")?.replace('+', " ");
    let key = percent_decode_str(&key).decode_utf8().ok()?;
    object(text("/s3/bucket/name")?, &key, text("/awsRegion")).map(Some)
}

/// An object, if its bucket and region have names that AWS gives. They become part of a host's name, to which
/// credentials are sent, and those who can write to the queue must not choose that host.
fn object(bucket: &str, key: &str, region: Option<&str>) -> Option<Object> {
    let plain = |text: &str, others: &[u8]| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || others.contains(byte);
        !text.is_empty() && text.len() <= 255 && text.as_bytes().iter().all(allowed)
    };
    if !plain(bucket, b".-_") || !region.is_none_or(|region| plain(region, b"-")) {
        return None;
    }
    Some(Object { bucket: bucket.to_owned(), key: key.to_owned(), region: region.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: &str, expected: Result<&[&str], &str>) {
        let found = objects(body).map(|found| {
            let shown = |o: &Object| format!("{}/{} {}", o.bucket, o.key, o.region.as_deref().unwrap_or("?"));
            found.iter().map(shown).collect::<Vec<_>>()
        });
        match expected {
            Ok(names) => assert_eq!(found.as_deref().unwrap_or_default(), names, "{body}"),
            Err(reason) => {
                assert!(found.as_ref().is_err_and(|error| error.contains(reason)), "{body}: {found:?}")
            }
        }
    }

    #[test]
    fn every_form_is_parsed() {
        let record = |name: &str, key: &str| {
            json!({"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1", "eventName": name,
                "s3": {"bucket": {"name": "logs"}, "object": {"key": key, "size": 12}}})
        };
        let s3 = json!({"Records": [record("ObjectCreated:Put", "a/b+c%2Bd%C3%A9.json.gz"), record("ObjectRemoved:Delete", "x")]})
            .to_string();
        let trail = json!({"s3Bucket": "logs", "s3ObjectKey": ["a+b.json.gz", "c.json.gz"]}).to_string();
        let bridge = |kind: &str| {
            json!({"version": "0", "source": "aws.s3", "detail-type": kind, "region": "us-west-2",
                "detail": {"bucket": {"name": "logs"}, "object": {"key": "a+b%20c"}}})
            .to_string()
        };
        let sns =
            |message: &str| json!({"Type": "Notification", "TopicArn": "t", "Message": message}).to_string();
        let s3_names: &[&str] = &["logs/a/b c+dé.json.gz eu-central-1"];
        let trail_names: &[&str] = &["logs/a+b.json.gz ?", "logs/c.json.gz ?"];
        check(&s3, Ok(s3_names));
        check(&sns(&s3), Ok(s3_names));
        check(&trail, Ok(trail_names));
        check(&sns(&trail), Ok(trail_names));
        check(&bridge("Object Created"), Ok(&["logs/a+b%20c us-west-2"]));
        check(&sns(&bridge("Object Created")), Ok(&["logs/a+b%20c us-west-2"]));
        check(&bridge("Object Deleted"), Ok(&[]));
        check(
            &json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "logs"}).to_string(),
            Ok(&[]),
        );
        check(&sns("CloudTrail validation message."), Ok(&[]));
        check(&json!({"Type": "SubscriptionConfirmation", "Token": "t"}).to_string(), Ok(&[]));
    }

    #[test]
    fn a_message_that_is_no_notification_is_reported() {
        for body in ["", "hello", "[]", "{}", r#"{"Records":[{}]}"#, r#"{"s3Bucket":"b","s3ObjectKey":[1]}"#]
        {
            check(body, Err("not a notification"));
        }
        let nested = (0..9)
            .fold("x".to_owned(), |inner, _| json!({"Type": "Notification", "Message": inner}).to_string());
        check(&nested, Err("not a notification"));
        let many: Vec<_> = (0..=OBJECTS_MAX).map(|key| key.to_string()).collect();
        check(&json!({"s3Bucket": "b", "s3ObjectKey": many}).to_string(), Err("more than 1000"));
    }
}
