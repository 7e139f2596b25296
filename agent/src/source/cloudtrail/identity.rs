//! The caller, the account, and the user or group that the call changed: `user.*`, `group.*`, `related.user`.

use lapwing_engine::{FieldId, Fields, Value, field};

use super::records::{CloudTrailRecord, at};

/// Sets the fields of the identities in a record, whose `aws.cloudtrail.*` fields are set.
pub(crate) fn set(fields: &mut Fields, record: &CloudTrailRecord) {
    let mut related = Vec::new();
    account(fields);
    caller(fields, record, &mut related);
    targets(fields, record, &mut related);
    let id = text(fields, field!("user.id"));
    let name = text(fields, field!("user.name"));
    if fields.get(field!("user.email")).is_none() {
        fields.set_some(field!("user.email"), name.clone().filter(|name| name.find('@') > Some(0)));
    }
    let mut unique: Vec<String> = Vec::new();
    for user in related.into_iter().chain(id).chain(name) {
        if !unique.contains(&user) {
            unique.push(user);
        }
    }
    fields.set(field!("related.user"), Value::texts(unique));
}

fn account(fields: &mut Fields) {
    let own = text(fields, field!("aws.cloudtrail.user_identity.account_id"));
    let account = own.or_else(|| text(fields, field!("aws.cloudtrail.recipient_account_id")));
    fields.set_some(field!("cloud.account.id"), account);
}

fn caller(fields: &mut Fields, record: &CloudTrailRecord, related: &mut Vec<String>) {
    let kind = text(fields, field!("aws.cloudtrail.user_identity.type")).unwrap_or_default();
    let mut id = text(fields, field!("aws.cloudtrail.user_identity.principal_id"));
    match kind.as_str() {
        "IdentityCenterUser" => {
            id = id.or_else(|| text(fields, field!("aws.cloudtrail.user_identity.on_behalf_of.user_id")));
        }
        // A session is identified by its role's name; its own name is often the person's.
        "AssumedRole" | "FederatedUser" => {
            let issuer = field!("aws.cloudtrail.user_identity.session_context.session_issuer.user_name");
            fields.set_some(field!("user.name"), text(fields, issuer));
            let arn = text(fields, field!("aws.cloudtrail.user_identity.arn")).unwrap_or_default();
            if let Some(session) = session_name(&arn) {
                related.push(session.to_owned());
                if let Some((name, _)) = session.split_once('@') {
                    related.push(name.to_owned());
                    fields.set(field!("user.email"), session);
                }
            }
        }
        _ => {}
    }
    fields.set_some(field!("user.id"), id);
    let authentication = text(fields, field!("event.action")).as_deref() == Some("UserAuthentication");
    if authentication && fields.get(field!("user.name")).is_none() {
        fields.set_some(field!("user.name"), at(record, &["additionalEventData", "UserName"]));
    }
}

/// The user and the group that a call was about.
fn targets(fields: &mut Fields, record: &CloudTrailRecord, related: &mut Vec<String>) {
    for (path, id) in TARGETS {
        let value = at(record, path);
        fields.set_some(*id, value);
        related.extend(value.map(str::to_owned));
    }
    fields.set_some(field!("group.name"), at(record, &["requestParameters", "groupName"]));
    fields.set_some(field!("group.id"), at(record, &["responseElements", "group", "groupId"]));
}

const TARGETS: &[(&[&str], FieldId)] = &[
    (&["requestParameters", "userName"], field!("user.target.name")),
    (&["requestParameters", "newUserName"], field!("user.changes.name")),
    (&["responseElements", "user", "userId"], field!("user.target.id")),
];

fn text(fields: &Fields, id: FieldId) -> Option<String> {
    fields.get(id).and_then(|value| value.first_text()).map(str::to_owned)
}

/// The name of a session, which is the last part of an assumed role's ARN.
fn session_name(arn: &str) -> Option<&str> {
    let rest = arn.strip_prefix("arn:aws")?;
    let rest = ["", "-us-gov", "-cn"]
        .iter()
        .find_map(|partition| rest.strip_prefix(partition)?.strip_prefix(":sts:"))?;
    rest.rsplit_once('/').map(|(_, name)| name).filter(|name| !name.is_empty())
}
