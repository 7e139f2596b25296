//! Who acted on what: the ids of users, hosts and resources that a record names, as the Elastic AWS integration
//! gathers them in `related.entity`, `target.entity.id`, `actor.entity.id` and their typed forms.
//!
//! A table by service and action lists the members of a record that hold an id. `*` in a path means every element of an
//! array.

use std::collections::BTreeSet;

use lapwing_engine::{FieldId, Fields, Value, field};
use serde_json::Value as Json;

use super::records::{CloudTrailRecord, at};

/// Sets the entity fields of a record's event.
pub(crate) fn set(fields: &mut Fields, record: &CloudTrailRecord) {
    let service = at(record, &["eventSource"]).unwrap_or_default();
    let action = at(record, &["eventName"]).unwrap_or_default();
    let mut related = BTreeSet::new();
    let identity_center = at(record, &["userIdentity", "type"]) == Some("IdentityCenterUser");
    let identity =
        RELATED_ALWAYS.iter().chain(identity_center.then_some(&"userIdentity.onBehalfOf.identityStoreArn"));
    let of_service = RELATED.iter().filter(|row| row.service == service).flat_map(|row| row.paths);
    for path in identity.chain(of_service) {
        collect(record, path, &mut related);
    }
    let mut targets = BTreeSet::new();
    for row in TARGETS
        .iter()
        .filter(|row| row.service == service && row.actions.iter().any(|name| names(name, action)))
    {
        for path in row.paths {
            collect(record, path, &mut targets);
        }
    }
    if (service, action) == ("ssm.amazonaws.com", "SendCommand")
        && targets.len() == 1
        && targets.contains("*")
    {
        // A command to every instance is a command to the account.
        targets.clear();
        collect(record, "recipientAccountId", &mut targets);
    }
    set_targets(fields, &targets);
    set_actor(fields, record, service, action);
    related.extend(targets);
    fields.set(field!("related.entity"), Value::texts(related));
}

fn set_targets(fields: &mut Fields, targets: &BTreeSet<&str>) {
    fields.set(field!("target.entity.id"), Value::texts(targets.iter().copied()));
    for (kind, id) in [
        (TargetKind::User, field!("user.target.entity.id")),
        (TargetKind::Host, field!("host.target.entity.id")),
        (TargetKind::Service, field!("service.target.entity.id")),
        (TargetKind::Other, field!("entity.target.id")),
    ] {
        fields.set(id, Value::texts(targets.iter().copied().filter(|target| target_kind(target) == kind)));
    }
}

fn set_actor(fields: &mut Fields, record: &CloudTrailRecord, service: &str, action: &str) {
    let kind = at(record, &["userIdentity", "type"]).unwrap_or_default();
    let path: &[&str] = match (service, action, kind) {
        ("sts.amazonaws.com", "AssumeRole", "AWSService") => &["userIdentity", "invokedBy"],
        ("sts.amazonaws.com", "AssumeRole", "AssumedRole") => {
            &["userIdentity", "sessionContext", "sessionIssuer", "arn"]
        }
        _ => &["userIdentity", "arn"],
    };
    let on_behalf = || at(record, &["userIdentity", "onBehalfOf", "userId"]);
    let Some(actor) = at(record, path).or_else(on_behalf) else {
        return;
    };
    fields.set(field!("actor.entity.id"), actor);
    fields.set(actor_field(kind, actor), actor);
}

fn actor_field(kind: &str, actor: &str) -> FieldId {
    if kind == "AWSService" || is_service_role(actor) {
        return field!("service.entity.id");
    }
    if matches!(kind, "AssumedRole" | "IAMUser" | "Root") {
        return field!("user.entity.id");
    }
    match resource_type(actor) {
        Some("user" | "role" | "assumed-role" | "federated-user") => field!("user.entity.id"),
        Some("instance") => field!("host.entity.id"),
        None if actor.starts_with("i-") => field!("host.entity.id"),
        _ => field!("entity.id"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TargetKind {
    User,
    Host,
    Service,
    Other,
}

fn target_kind(target: &str) -> TargetKind {
    let known = |table: &[&str], name: &str| table.contains(&name);
    match resource_type(target) {
        Some(_) if is_service_role(target) => TargetKind::Service,
        Some(resource) if known(USER_RESOURCES, resource) => TargetKind::User,
        Some("instance") => TargetKind::Host,
        Some(resource) if known(SERVICE_RESOURCES, resource) || target.split(':').nth(2) == Some("s3") => {
            TargetKind::Service
        }
        Some(_) => TargetKind::Other,
        None if target.starts_with("arn:") => TargetKind::Other,
        None if target.len() == 20 && target.starts_with("AKIA") => TargetKind::User,
        None if target.starts_with("i-") => TargetKind::Host,
        None if SERVICE_PREFIXES.iter().any(|prefix| target.starts_with(prefix)) => TargetKind::Service,
        None => TargetKind::Other,
    }
}

/// The kind of resource that an ARN names, such as `role`.
fn resource_type(arn: &str) -> Option<&str> {
    let resource = arn.strip_prefix("arn:")?.split(':').nth(4)?;
    Some(resource.split('/').next().filter(|kind| !kind.is_empty()).unwrap_or(resource))
}

fn is_service_role(arn: &str) -> bool {
    arn.contains("/AWSServiceRoleFor") || arn.contains("/aws-service-role/")
}

/// Lambda's actions carry a version behind their name.
fn names(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => action.starts_with(prefix),
        None => action == pattern,
    }
}

/// Gathers the texts at a dotted path.
fn collect<'a>(record: &'a CloudTrailRecord, path: &str, found: &mut BTreeSet<&'a str>) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    if let Some(json) = record.get(first) {
        collect_below(json, rest, found);
    }
}

fn collect_below<'a>(json: &'a Json, path: &str, found: &mut BTreeSet<&'a str>) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match json {
        Json::String(text) if path.is_empty() => {
            found.insert(text);
        }
        Json::Array(array) if first == "*" => {
            array.iter().for_each(|element| collect_below(element, rest, found))
        }
        Json::Object(object) => {
            if let Some(json) = object.get(first) {
                collect_below(json, rest, found);
            }
        }
        _ => {}
    }
}

struct Related {
    service: &'static str,
    paths: &'static [&'static str],
}

struct Target {
    service: &'static str,
    actions: &'static [&'static str],
    paths: &'static [&'static str],
}

const fn target(
    service: &'static str,
    actions: &'static [&'static str],
    paths: &'static [&'static str],
) -> Target {
    Target { service, actions, paths }
}

const RELATED_ALWAYS: &[&str] = &[
    "resources.*.ARN",
    "userIdentity.accessKeyId",
    "userIdentity.arn",
    "userIdentity.sessionContext.sessionIssuer.arn",
    "userIdentity.sessionContext.sessionIssuer.userName",
    "userIdentity.userName",
];

const USER_RESOURCES: &[&str] =
    &["assumed-role", "federated-user", "instance-profile", "mfa", "role", "serialNumber", "user"];

#[rustfmt::skip]
const SERVICE_RESOURCES: &[&str] = &[
    "alarm", "cluster", "configuration-recorder", "db", "detector", "dhcp-options", "document", "file-system",
    "function", "global-cluster", "group", "ipset", "key", "loadbalancer", "log-group", "log-stream", "model",
    "mount-target", "network-acl", "network-interface", "parameter", "policy", "resolver-query-log-config", "rule",
    "rulegroup", "secret", "security-group", "session", "stack", "stack-set", "subnet", "table", "topic", "trail",
    "trust-anchor", "vpc", "webacl",
];

const SERVICE_PREFIXES: &[&str] =
    &["acl-", "eni-", "igw-", "nat-", "pcx-", "rtb-", "sg-", "sgr-", "subnet-", "tgw-", "vpc-", "vpce-"];

#[rustfmt::skip]
const RELATED: &[Related] = &[
    Related { service: "cloudtrail.amazonaws.com", paths: &[
        "requestParameters.name", "requestParameters.s3BucketName", "responseElements.cloudWatchLogsLogGroupArn",
        "responseElements.cloudWatchLogsRoleArn", "responseElements.kmsKeyId", "responseElements.name",
        "responseElements.snsTopicARN", "responseElements.trailARN",
    ] },
    Related { service: "config.amazonaws.com", paths: &["requestParameters.configurationRecorderName"] },
    Related { service: "ec2.amazonaws.com", paths: &[
        "requestParameters.groupId", "requestParameters.groupName", "requestParameters.groupSet.items.*.groupId",
        "requestParameters.instancesSet.items.*.instanceId", "requestParameters.networkInterfaceId",
        "requestParameters.revokedSecurityGroupRuleSet.items.*.groupId",
        "requestParameters.revokedSecurityGroupRuleSet.items.*.securityGroupRuleId", "requestParameters.roleName",
        "requestParameters.snapshotId", "requestParameters.subnetId", "requestParameters.volumeId",
        "requestParameters.vpcId", "responseElements.groupId", "responseElements.groupSet.items.*.groupId",
        "responseElements.instancesSet.items.*.iamInstanceProfile.arn",
        "responseElements.instancesSet.items.*.imageId", "responseElements.instancesSet.items.*.instanceId",
        "responseElements.instancesSet.items.*.networkInterfaceSet.items.*.groupSet.items.*.groupId",
        "responseElements.instancesSet.items.*.networkInterfaceSet.items.*.networkInterfaceId",
        "responseElements.instancesSet.items.*.networkInterfaceSet.items.*.subnetId",
        "responseElements.instancesSet.items.*.networkInterfaceSet.items.*.vpcId",
        "responseElements.instancesSet.items.*.subnetId", "responseElements.instancesSet.items.*.vpcId",
        "responseElements.reservationId", "responseElements.securityGroupRuleSet.items.*.groupId",
        "responseElements.securityGroupRuleSet.items.*.referencedGroupInfo.groupId",
        "responseElements.securityGroupRuleSet.items.*.securityGroupRuleId", "responseElements.snapshotId",
        "responseElements.volumeId", "responseElements.vpc.dhcpOptionsId", "responseElements.vpc.vpcId",
    ] },
    Related { service: "guardduty.amazonaws.com", paths: &["requestParameters.detectorId", "responseElements.detectorId"] },
    Related { service: "iam.amazonaws.com", paths: &[
        "requestParameters.accessKeyId", "requestParameters.policyArn", "requestParameters.policyName",
        "requestParameters.roleName", "requestParameters.serialNumber", "requestParameters.userName",
        "responseElements.accessKey.accessKeyId", "responseElements.accessKey.userName", "responseElements.role.arn",
        "responseElements.serialNumber", "responseElements.user.arn", "responseElements.user.userId",
        "responseElements.user.userName", "responseElements.userId",
    ] },
    Related { service: "kms.amazonaws.com", paths: &[
        "requestParameters.keyId", "responseElements.keyId", "responseElements.keyMetadata.arn",
        "responseElements.keyMetadata.keyId",
    ] },
    Related { service: "lambda.amazonaws.com", paths: &[
        "requestParameters.functionName", "responseElements.functionArn", "responseElements.functionName",
        "responseElements.role", "responseElements.vpcConfig.securityGroupIds.*",
        "responseElements.vpcConfig.subnetIds.*",
    ] },
    Related { service: "rds.amazonaws.com", paths: &[
        "requestParameters.dBInstanceArn", "requestParameters.dBInstanceIdentifier",
        "responseElements.dBInstanceIdentifier", "responseElements.dBSubnetGroup.subnets.*.subnetIdentifier",
        "responseElements.dBSubnetGroup.vpcId", "responseElements.dbInstanceArn",
        "responseElements.vpcSecurityGroups.*.vpcSecurityGroupId",
    ] },
    Related { service: "s3.amazonaws.com", paths: &["requestParameters.bucketName"] },
    Related { service: "sts.amazonaws.com", paths: &[
        "additionalEventData.MFAIdentifier", "requestParameters.roleArn", "requestParameters.roleSessionName",
        "responseElements.accessKeyId", "responseElements.assumedRoleUser.arn", "sourceIdentity",
    ] },
    Related { service: "wafv2.amazonaws.com", paths: &["requestParameters.id", "responseElements.summary"] },
];

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    target("bedrock.amazonaws.com", &["Converse"], &["requestParameters.modelId"]),
    target("cloudformation.amazonaws.com", &["CreateStack"], &["responseElements.stackId"]),
    target("cloudformation.amazonaws.com", &["CreateStackSet"], &["responseElements.stackSetId"]),
    target("cloudtrail.amazonaws.com", &["DeleteTrail", "StopLogging"], &["requestParameters.name"]),
    target("cloudtrail.amazonaws.com", &["DescribeTrails"], &["recipientAccountId"]),
    target("config.amazonaws.com", &["StartConfigurationRecorder", "StopConfigurationRecorder"],
        &["requestParameters.configurationRecorderName"]),
    target("dynamodb.amazonaws.com", &["ListTables"], &["recipientAccountId"]),
    target("ec2-instance-connect.amazonaws.com", &["SendSSHPublicKey", "SendSerialConsoleSSHPublicKey"],
        &["requestParameters.instanceId"]),
    target("ec2.amazonaws.com", &["AuthorizeSecurityGroupEgress", "AuthorizeSecurityGroupIngress"],
        &["requestParameters.groupId", "responseElements.securityGroupRuleSet.items.*.securityGroupRuleId"]),
    target("ec2.amazonaws.com", &["CreateTrafficMirrorFilter"],
        &["responseElements.CreateTrafficMirrorFilterResponse.trafficMirrorFilter.trafficMirrorFilterId"]),
    target("ec2.amazonaws.com", &["CreateTrafficMirrorFilterRule"],
        &["responseElements.CreateTrafficMirrorFilterRuleResponse.trafficMirrorFilterRule.trafficMirrorFilterRuleId"]),
    target("ec2.amazonaws.com", &["CreateTrafficMirrorSession"],
        &["responseElements.CreateTrafficMirrorSessionResponse.trafficMirrorSession.trafficMirrorSessionId"]),
    target("ec2.amazonaws.com", &["CreateTrafficMirrorTarget"],
        &["responseElements.CreateTrafficMirrorTargetResponse.trafficMirrorTarget.trafficMirrorTargetId"]),
    target("ec2.amazonaws.com", &["DeleteFlowLogs"], &["requestParameters.DeleteFlowLogsRequest.FlowLogId.content"]),
    target("ec2.amazonaws.com", &["DeleteNetworkAcl", "DeleteNetworkAclEntry"], &["requestParameters.networkAclId"]),
    target("ec2.amazonaws.com", &["GetPasswordData"], &["requestParameters.instanceId"]),
    target("ec2.amazonaws.com", &["ModifyImageAttribute"], &["requestParameters.imageId"]),
    target("ec2.amazonaws.com", &["ModifySnapshotAttribute"], &["requestParameters.snapshotId"]),
    target("ec2.amazonaws.com", &["DescribeNetworkAcls", "DescribeNetworkInterfaces", "DescribeRegions",
        "DescribeSecurityGroups", "DescribeVolumes", "DescribeVpcs"], &["recipientAccountId"]),
    target("elasticfilesystem.amazonaws.com", &["DeleteFileSystem"], &["requestParameters.fileSystemId"]),
    target("elasticfilesystem.amazonaws.com", &["DeleteMountTarget"], &["requestParameters.mountTargetId"]),
    target("elasticloadbalancing.amazonaws.com", &["DescribeLoadBalancers"], &["recipientAccountId"]),
    target("events.amazonaws.com", &["DeleteRule"], &["requestParameters.name"]),
    target("guardduty.amazonaws.com", &["CreateDetector"], &["responseElements.detectorId"]),
    target("guardduty.amazonaws.com", &["DeleteDetector"], &["requestParameters.detectorId"]),
    target("iam.amazonaws.com", &["AttachGroupPolicy"], &["requestParameters.groupName"]),
    target("iam.amazonaws.com", &["AttachRolePolicy", "ListAttachedRolePolicies", "UpdateAssumeRolePolicy"],
        &["requestParameters.roleName"]),
    target("iam.amazonaws.com", &["AttachUserPolicy"], &["requestParameters.policyArn", "requestParameters.userName"]),
    target("iam.amazonaws.com", &["CreateAccessKey"],
        &["requestParameters.userName", "responseElements.accessKey.accessKeyId"]),
    target("iam.amazonaws.com", &["CreatePolicy"], &["responseElements.policy.arn"]),
    target("iam.amazonaws.com", &["CreateUser", "DeactivateMFADevice"], &["requestParameters.userName"]),
    target("iam.amazonaws.com", &["DeleteVirtualMFADevice"], &["requestParameters.serialNumber"]),
    target("iam.amazonaws.com", &["GetPolicy"], &["requestParameters.policyArn"]),
    target("iam.amazonaws.com", &["ListRoles", "ListUsers"], &["recipientAccountId"]),
    target("kms.amazonaws.com", &["DisableKey", "ScheduleKeyDeletion"], &["resources.*.ARN"]),
    target("lambda.amazonaws.com", &["AddPermission*"], &["requestParameters.functionName"]),
    target("lambda.amazonaws.com", &["ListFunctions*"], &["recipientAccountId"]),
    target("logs.amazonaws.com", &["DeleteLogGroup"], &["requestParameters.logGroupName"]),
    target("logs.amazonaws.com", &["DeleteLogStream"], &["requestParameters.logStreamName"]),
    target("monitoring.amazonaws.com", &["DeleteAlarms"], &["requestParameters.alarmNames.*"]),
    target("rds.amazonaws.com", &["DeleteDBCluster", "ModifyDBCluster", "StopDBCluster"],
        &["responseElements.dBClusterArn"]),
    target("rds.amazonaws.com", &["DeleteDBInstance", "ModifyDBInstance", "RestoreDBInstanceFromDBSnapshot",
        "RestoreDBInstanceFromS3", "StopDBInstance"], &["responseElements.dBInstanceArn"]),
    target("rds.amazonaws.com", &["DeleteGlobalCluster"], &["responseElements.globalClusterArn"]),
    target("rds.amazonaws.com", &["DescribeDBInstances"], &["recipientAccountId"]),
    target("rds.amazonaws.com", &["ModifyDBClusterSnapshotAttribute"], &["responseElements.dBClusterSnapshotIdentifier"]),
    target("rds.amazonaws.com", &["ModifyDBSnapshotAttribute"], &["responseElements.dBSnapshotIdentifier"]),
    target("rolesanywhere.amazonaws.com", &["CreateTrustAnchor"], &["responseElements.trustAnchor.trustAnchorArn"]),
    target("route53resolver.amazonaws.com", &["DeleteResolverQueryLogConfig"],
        &["responseElements.resolverQueryLogConfig.arn"]),
    target("s3.amazonaws.com", &["CopyObject", "DeleteBucket", "DeleteObject", "GetBucketPolicy", "GetObject",
        "HeadObject", "ListObjects", "PutBucketLogging", "PutBucketReplication", "PutBucketVersioning", "PutObject"],
        &["resources.*.ARN"]),
    target("s3.amazonaws.com", &["PutBucketReplication"],
        &["requestParameters.ReplicationConfiguration.Rule.Destination.Bucket"]),
    target("s3.amazonaws.com", &["ListBuckets"], &["recipientAccountId"]),
    target("secretsmanager.amazonaws.com", &["BatchGetSecretValue"], &["requestParameters.secretIdList.*"]),
    target("secretsmanager.amazonaws.com", &["GetSecretValue"], &["requestParameters.secretId"]),
    target("signin.amazonaws.com", &["ConsoleLogin"], &["recipientAccountId"]),
    target("sns.amazonaws.com", &["CreateTopic"], &["responseElements.topicArn"]),
    target("sns.amazonaws.com", &["Publish", "Subscribe"], &["requestParameters.topicArn"]),
    target("ssm.amazonaws.com", &["CreateControlChannel", "GetParameter", "GetParameters", "OpenControlChannel"],
        &["resources.*.ARN"]),
    target("ssm.amazonaws.com", &["CreateDocument"], &["requestParameters.name"]),
    target("ssm.amazonaws.com", &["ListInstanceAssociations"], &["recipientAccountId"]),
    target("ssm.amazonaws.com", &["OpenDataChannel", "TerminateSession"], &["requestParameters.sessionId"]),
    target("ssm.amazonaws.com", &["SendCommand"],
        &["requestParameters.instanceIds.*", "requestParameters.targets.*.values.*"]),
    target("ssm.amazonaws.com", &["StartSession"], &["requestParameters.target"]),
    target("sts.amazonaws.com", &["AssumeRole"], &["requestParameters.roleArn"]),
    target("sts.amazonaws.com", &["GetCallerIdentity"], &["recipientAccountId"]),
    target("wafv2.amazonaws.com", &["DeleteRuleGroup", "DeleteWebACL"], &["requestParameters.id"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_classified_by_their_resource_type() {
        for (target, kind) in [
            ("arn:aws:iam::111122223333:role/build", TargetKind::User),
            ("arn:aws:iam::111122223333:role/aws-service-role/x/AWSServiceRoleForX", TargetKind::Service),
            ("arn:aws:ec2:eu-west-1:111122223333:instance/i-0a1b2c3d", TargetKind::Host),
            ("arn:aws:s3:::logs/a/b", TargetKind::Service),
            ("arn:aws:kms:eu-west-1:111122223333:key/1", TargetKind::Service),
            ("arn:odd", TargetKind::Other),
            ("AKIAIOSFODNN7EXAMPLE", TargetKind::User),
            ("i-0a1b2c3d", TargetKind::Host),
            ("sg-1", TargetKind::Service),
            ("111122223333", TargetKind::Other),
        ] {
            assert_eq!(target_kind(target), kind, "{target}");
        }
    }

    #[test]
    fn a_command_to_all_instances_is_one_to_the_account() {
        let record = serde_json::json!({"eventSource": "ssm.amazonaws.com", "eventName": "SendCommand",
            "recipientAccountId": "111122223333", "requestParameters": {"instanceIds": ["*"]}});
        let mut fields = Fields::new();
        set(&mut fields, record.as_object().unwrap());
        assert_eq!(fields.get(field!("target.entity.id")), Some(&Value::texts(["111122223333"])));
    }
}
