//! One CloudTrail record as an ECS event: the fields that the Elastic AWS integration's `cloudtrail` data stream has,
//! so that rules written against it mean the same here, and the rest of the record, so that none of it is lost.

use std::net::IpAddr;
use std::sync::Arc;

use lapwing_engine::{Event, FieldId, Fields, Schema, Timestamp, Value, field};
use serde_json::{Value as Json, json};

use super::actions::action;
use super::geo::Geo;
use super::records::{CloudTrailRecord, at};
use super::{entities, identity, text};

/// Longest text of a request, response or other object that is also given as a flattened object, in bytes: the
/// longest term that Elasticsearch indexes.
const FLATTENED_BYTES_MAX: usize = 32_765;

/// Maps records to events.
pub(crate) struct Mapper {
    schema: Arc<Schema>,
    constants: Arc<Fields>,
    /// The databases that place `source.ip`.
    pub(crate) geo: Geo,
    preserve_original: bool,
}

impl Mapper {
    /// A mapper that knows the fields of `schema`; with `preserve_original` the record as it was is kept in
    /// `event.original`.
    pub(crate) fn new(schema: Arc<Schema>, geo: Geo, preserve_original: bool) -> Self {
        Self { schema, constants: constants().into(), geo, preserve_original }
    }

    /// The event of a record. `origin` says where the record was read, `created` when. A replay sets neither, so that
    /// it gives the same events each time.
    ///
    /// # Errors
    /// Why the record cannot be an event, as half a sentence.
    pub(crate) fn event(
        &mut self,
        mut record: CloudTrailRecord,
        origin: Option<&Arc<Fields>>,
        created: Option<Timestamp>,
    ) -> Result<Event, String> {
        let time = record.get("eventTime").and_then(Json::as_str).unwrap_or_default();
        let time =
            Timestamp::parse(time).ok_or_else(|| format!("a record's eventTime is not a time: {time:?}"))?;
        let mut fields = Fields::new();
        if self.preserve_original {
            fields.set(field!("event.original"), Json::Object(record.clone()).to_string());
        }
        fields.set_some(field!("event.created"), created);
        record.retain(|_, value| !is_nothing(value));
        record.swap_remove("eventTime");

        entities::set(&mut fields, &record);
        categorize(&mut fields, &record);
        console_login(&mut fields, &record);
        resources(&mut fields, &mut record);
        let address = source(&mut fields, &mut self.geo, &record);
        tls(&mut fields, &record);
        user_agent(&mut fields, &record);
        for (path, id) in MEMBERS {
            if let Some(value) = take(&mut record, path) {
                fields.set_some(*id, Value::from_json(self.schema.ty(*id), &value));
            }
        }
        identity::set(&mut fields, &record);
        let shared = origin.into_iter().chain([&self.constants]).cloned().collect();
        let mut event = Event::new(time, fields, shared);
        self.objects(&mut event, &mut record);
        if let Some((latitude, longitude)) = address.and_then(|address| self.geo.location(address)) {
            event.keep("source.geo.location", json!({"lat": latitude, "lon": longitude}));
        }
        record.retain(|_, value| !is_nothing(value));
        for (name, value) in record {
            event.keep(&format!("aws.cloudtrail.other.{name}"), value);
        }
        Ok(event)
    }

    /// The members that are objects of any shape: as a text and flattened.
    fn objects(&self, event: &mut Event, record: &mut CloudTrailRecord) {
        for (name, text_id, flattened_id) in OBJECTS {
            let Some(Json::Object(object)) = record.swap_remove(*name) else {
                continue;
            };
            let text = text_id.map(|id| (id, text::of_object(&object)));
            if text.as_ref().is_none_or(|(_, text)| text.len() <= FLATTENED_BYTES_MAX) {
                event.set_flattened(&self.schema, *flattened_id, object);
            }
            if let Some((id, text)) = text {
                event.set(id, text);
            }
        }
    }
}

/// What every event holds.
pub(super) fn constants() -> Fields {
    let mut constants = Fields::new();
    constants
        .set(field!("cloud.provider"), "aws")
        .set(field!("data_stream.dataset"), "aws.cloudtrail")
        .set(field!("data_stream.type"), "logs")
        .set(field!("ecs.version"), "8.11.0")
        .set(field!("event.dataset"), "aws.cloudtrail")
        .set(field!("event.kind"), "event")
        .set(field!("event.module"), "aws");
    constants
}

/// The fields that members of a record are.
pub(super) fn fields() -> impl Iterator<Item = FieldId> {
    let objects = OBJECTS.iter().flat_map(|(_, text, flattened)| text.iter().chain([flattened]).copied());
    MEMBERS.iter().map(|(_, id)| *id).chain(objects)
}

/// Members of a record that are fields as they are.
#[rustfmt::skip]
const MEMBERS: &[(&[&str], FieldId)] = &[
    (&["eventVersion"], field!("aws.cloudtrail.event_version")),
    (&["eventID"], field!("event.id")),
    (&["eventName"], field!("event.action")),
    (&["eventSource"], field!("event.provider")),
    (&["eventType"], field!("aws.cloudtrail.event_type")),
    (&["eventCategory"], field!("aws.cloudtrail.event_category")),
    (&["awsRegion"], field!("cloud.region")),
    (&["sourceIPAddress"], field!("source.address")),
    (&["userAgent"], field!("user_agent.original")),
    (&["errorCode"], field!("aws.cloudtrail.error_code")),
    (&["errorMessage"], field!("aws.cloudtrail.error_message")),
    (&["requestID"], field!("aws.cloudtrail.request_id")),
    (&["apiVersion"], field!("aws.cloudtrail.api_version")),
    (&["managementEvent"], field!("aws.cloudtrail.management_event")),
    (&["readOnly"], field!("aws.cloudtrail.read_only")),
    (&["recipientAccountId"], field!("aws.cloudtrail.recipient_account_id")),
    (&["sharedEventID"], field!("aws.cloudtrail.shared_event_id")),
    (&["sharedEventId"], field!("aws.cloudtrail.shared_event_id")),
    (&["vpcEndpointId"], field!("aws.cloudtrail.vpc_endpoint_id")),
    (&["vpcEndpointAccountId"], field!("aws.cloudtrail.vpc_endpoint_account_id")),
    (&["sessionCredentialFromConsole"], field!("aws.cloudtrail.session_credential_from_console")),
    (&["addendum", "reason"], field!("aws.cloudtrail.addendum.reason")),
    (&["addendum", "updatedFields"], field!("aws.cloudtrail.addendum.updated_fields")),
    (&["addendum", "originalRequestID"], field!("aws.cloudtrail.addendum.original_request_id")),
    (&["addendum", "originalEventID"], field!("aws.cloudtrail.addendum.original_event_id")),
    (&["tlsDetails", "tlsVersion"], field!("aws.cloudtrail.tls_details.tls_version")),
    (&["tlsDetails", "cipherSuite"], field!("aws.cloudtrail.tls_details.cipher_suite")),
    (&["tlsDetails", "clientProvidedHostHeader"], field!("aws.cloudtrail.tls_details.client_provided_host_header")),
    (&["userIdentity", "type"], field!("aws.cloudtrail.user_identity.type")),
    (&["userIdentity", "arn"], field!("aws.cloudtrail.user_identity.arn")),
    (&["userIdentity", "accountId"], field!("aws.cloudtrail.user_identity.account_id")),
    (&["userIdentity", "principalId"], field!("aws.cloudtrail.user_identity.principal_id")),
    (&["userIdentity", "accessKeyId"], field!("aws.cloudtrail.user_identity.access_key_id")),
    (&["userIdentity", "credentialId"], field!("aws.cloudtrail.user_identity.credential_id")),
    (&["userIdentity", "identityProvider"], field!("aws.cloudtrail.user_identity.identity_provider")),
    (&["userIdentity", "invokedBy"], field!("aws.cloudtrail.user_identity.invoked_by")),
    (&["userIdentity", "userName"], field!("user.name")),
    (&["userIdentity", "onBehalfOf", "userId"], field!("aws.cloudtrail.user_identity.on_behalf_of.user_id")),
    (&["userIdentity", "onBehalfOf", "identityStoreArn"],
        field!("aws.cloudtrail.user_identity.on_behalf_of.identity_store_arn")),
    (&["userIdentity", "inScopeOf", "issuerType"], field!("aws.cloudtrail.user_identity.inscopeof.issuer_type")),
    (&["userIdentity", "inScopeOf", "credentialsIssuedTo"],
        field!("aws.cloudtrail.user_identity.inscopeof.credentials_issued_to")),
    (&["userIdentity", "sessionContext", "sourceIdentity"],
        field!("aws.cloudtrail.user_identity.session_context.source_identity")),
    (&["userIdentity", "sessionContext", "attributes", "mfaAuthenticated"],
        field!("aws.cloudtrail.user_identity.session_context.mfa_authenticated")),
    (&["userIdentity", "sessionContext", "attributes", "creationDate"],
        field!("aws.cloudtrail.user_identity.session_context.creation_date")),
    (&["userIdentity", "sessionContext", "sessionIssuer", "type"],
        field!("aws.cloudtrail.user_identity.session_context.session_issuer.type")),
    (&["userIdentity", "sessionContext", "sessionIssuer", "userName"],
        field!("aws.cloudtrail.user_identity.session_context.session_issuer.user_name")),
    (&["userIdentity", "sessionContext", "sessionIssuer", "principalId"],
        field!("aws.cloudtrail.user_identity.session_context.session_issuer.principal_id")),
    (&["userIdentity", "sessionContext", "sessionIssuer", "arn"],
        field!("aws.cloudtrail.user_identity.session_context.session_issuer.arn")),
    (&["userIdentity", "sessionContext", "sessionIssuer", "accountId"],
        field!("aws.cloudtrail.user_identity.session_context.session_issuer.account_id")),
];

/// Members that are objects: the field of their text, and the flattened field.
#[rustfmt::skip]
const OBJECTS: &[(&str, Option<FieldId>, FieldId)] = &[
    ("requestParameters", Some(field!("aws.cloudtrail.request_parameters")),
        field!("aws.cloudtrail.flattened.request_parameters")),
    ("responseElements", Some(field!("aws.cloudtrail.response_elements")),
        field!("aws.cloudtrail.flattened.response_elements")),
    ("additionalEventData", Some(field!("aws.cloudtrail.additional_eventdata")),
        field!("aws.cloudtrail.flattened.additional_eventdata")),
    ("serviceEventDetails", Some(field!("aws.cloudtrail.service_event_details")),
        field!("aws.cloudtrail.flattened.service_event_details")),
    ("insightDetails", None, field!("aws.cloudtrail.flattened.insight_details")),
    ("edgeDeviceDetails", None, field!("aws.cloudtrail.edge_device_details")),
];

/// Whether a value is empty once its empty parts are removed.
fn is_nothing(value: &mut Json) -> bool {
    match value {
        Json::Null => true,
        Json::String(text) => matches!(text.as_str(), "" | "-" | "none"),
        Json::Array(array) => {
            array.retain_mut(|element| !is_nothing(element));
            array.is_empty()
        }
        Json::Object(object) => {
            object.retain(|_, value| !is_nothing(value));
            object.is_empty()
        }
        Json::Bool(_) | Json::Number(_) => false,
    }
}

fn take(record: &mut CloudTrailRecord, path: &[&str]) -> Option<Json> {
    let (last, above) = path.split_last()?;
    let mut object = record;
    for name in above {
        object = object.get_mut(*name)?.as_object_mut()?;
    }
    object.swap_remove(*last)
}

fn categorize(fields: &mut Fields, record: &CloudTrailRecord) {
    let name = at(record, &["eventName"]).unwrap_or_default();
    let failed = record.contains_key("errorCode") || record.contains_key("errorMessage");
    let login = at(record, &["responseElements", "ConsoleLogin"]).filter(|_| name == "ConsoleLogin");
    let outcome =
        login.map_or_else(|| if failed { "failure" } else { "success" }.to_owned(), str::to_lowercase);
    fields.set(field!("event.outcome"), outcome);
    match action(name) {
        Some(action) => fields
            .set(field!("event.category"), Value::texts([action.category]))
            .set(field!("event.type"), Value::texts(action.types.iter().copied())),
        None => fields.set(field!("event.type"), Value::texts(["info"])),
    };
}

fn console_login(fields: &mut Fields, record: &CloudTrailRecord) {
    if at(record, &["eventName"]) != Some("ConsoleLogin") {
        return;
    }
    let data = |name| at(record, &["additionalEventData", name]);
    fields
        .set_some(field!("aws.cloudtrail.console_login.additional_eventdata.login_to"), data("LoginTo"))
        .set_some(
            field!("aws.cloudtrail.console_login.additional_eventdata.mfa_used"),
            data("MFAUsed").map(|used| used != "No"),
        )
        .set_some(
            field!("aws.cloudtrail.console_login.additional_eventdata.mobile_version"),
            data("MobileVersion").map(|mobile| mobile != "No"),
        );
}

/// The resources that a call touched, each once, as parallel lists.
fn resources(fields: &mut Fields, record: &mut CloudTrailRecord) {
    let Some(Json::Array(resources)) = record.swap_remove("resources") else {
        return;
    };
    let mut seen: Vec<&Json> = Vec::new();
    for resource in &resources {
        if !seen.contains(&resource) {
            seen.push(resource);
        }
    }
    for (name, id) in [
        ("ARN", field!("aws.cloudtrail.resources.arn")),
        ("accountId", field!("aws.cloudtrail.resources.account_id")),
        ("type", field!("aws.cloudtrail.resources.type")),
    ] {
        let values: Vec<_> = seen.iter().filter_map(|resource| resource.get(name)?.as_str()).collect();
        match values.as_slice() {
            [value] => fields.set(id, *value),
            several => fields.set(id, Value::texts(several.iter().copied())),
        };
    }
}

/// The caller's address, which is a service's name where an AWS service called.
fn source(fields: &mut Fields, geo: &mut Geo, record: &CloudTrailRecord) -> Option<IpAddr> {
    let text = at(record, &["sourceIPAddress"])?;
    let Some(address) = text.parse().ok().map(|address: IpAddr| address.to_canonical()) else {
        if !text.contains(' ') {
            fields.set(field!("related.hosts"), Value::texts([text]));
        }
        return None;
    };
    fields.set(field!("source.ip"), address);
    fields.set(field!("related.ip"), Value::List([Value::from(address)].into()));
    geo.set(fields, address);
    Some(address)
}

fn tls(fields: &mut Fields, record: &CloudTrailRecord) {
    let detail = |name| at(record, &["tlsDetails", name]);
    if let Some(version) = detail("tlsVersion").filter(|version| *version != "tlsVersion") {
        match version.split_once('v') {
            Some((protocol, number)) => fields
                .set(field!("tls.version_protocol"), protocol.to_lowercase())
                .set(field!("tls.version"), number),
            None => fields.set(field!("tls.version"), version),
        };
    }
    fields
        .set_some(field!("tls.cipher"), detail("cipherSuite"))
        .set_some(field!("tls.client.server_name"), detail("clientProvidedHostHeader"));
}

/// Name and version of AWS's own clients. Browsers and other programs are only in `user_agent.original`.
fn user_agent(fields: &mut Fields, record: &CloudTrailRecord) {
    let text = at(record, &["userAgent"]).unwrap_or_default();
    for word in text.split([' ', '[', ']', ',']) {
        let Some((name, version)) = word.split_once('/') else {
            continue;
        };
        let known = AWS_CLIENTS.contains(&name) || name.starts_with("aws-sdk-dotnet-");
        let digits = version.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default();
        if known && digits.contains('.') {
            let parts: Vec<_> = digits.split('.').filter(|part| !part.is_empty()).take(3).collect();
            fields.set(field!("user_agent.name"), name).set(field!("user_agent.version"), parts.join("."));
            return;
        }
    }
}

const AWS_CLIENTS: &[&str] = &[
    "Boto",
    "Boto3",
    "JetS3t",
    "aws-cli",
    "aws-sdk-cpp",
    "aws-sdk-go",
    "aws-sdk-go-v2",
    "aws-sdk-java",
    "aws-sdk-nodejs",
    "aws-sdk-ruby",
    "aws-sdk-ruby2",
    "s3fs",
];
