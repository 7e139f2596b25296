//! What kind of event an API call is, in the words of ECS: the calls that the Elastic AWS integration names. All other
//! calls have no category, and the type `info`.

use std::collections::BTreeSet;

/// An API call's `event.category` and `event.type`.
pub(crate) struct ApiClass {
    name: &'static str,
    /// `event.category`.
    pub(crate) category: &'static str,
    /// `event.type`; some calls have none.
    pub(crate) types: &'static [&'static str],
}

/// The kind of the API call `name`, if it has one.
pub(crate) fn action(name: &str) -> Option<&'static ApiClass> {
    ACTIONS.binary_search_by(|action| action.name.cmp(name)).ok().map(|index| &ACTIONS[index])
}

/// The categories of calls.
pub(crate) fn categories() -> BTreeSet<&'static str> {
    ACTIONS.iter().map(|action| action.category).collect()
}

const fn row(name: &'static str, category: &'static str, types: &'static [&'static str]) -> ApiClass {
    ApiClass { name, category, types }
}

#[rustfmt::skip]
static ACTIONS: &[ApiClass] = &[
    row("AddUserToGroup", "iam", &["group", "change"]),
    row("AssumeRole", "authentication", &["info"]),
    row("AttachGroupPolicy", "iam", &["group", "change"]),
    row("AttachRolePolicy", "iam", &["change"]),
    row("AttachUserPolicy", "iam", &["user", "change"]),
    row("AuthorizeSecurityGroupIngress", "network", &["access"]),
    row("ChangePassword", "iam", &["user", "change"]),
    row("ConsoleLogin", "authentication", &["info"]),
    row("Converse", "api", &[]),
    row("CreateAccessKey", "iam", &["user", "change"]),
    row("CreateBucket", "file", &["creation"]),
    row("CreateControlChannel", "session", &["start"]),
    row("CreateDataChannel", "session", &["start"]),
    row("CreateDocument", "file", &["creation"]),
    row("CreateGroup", "iam", &["group", "creation"]),
    row("CreateKeyPair", "iam", &["admin", "creation"]),
    row("CreatePolicy", "iam", &["creation"]),
    row("CreateTopic", "configuration", &["creation"]),
    row("CreateUser", "iam", &["user", "creation"]),
    row("CreateVirtualMFADevice", "iam", &["user", "change"]),
    row("DeactivateMFADevice", "iam", &["user", "change"]),
    row("DeleteAccessKey", "iam", &["user", "change"]),
    row("DeleteBucket", "file", &["deletion"]),
    row("DeleteGroup", "iam", &["group", "deletion"]),
    row("DeleteGroupPolicy", "iam", &["group", "change"]),
    row("DeleteObject", "file", &["delete"]),
    row("DeleteSSHPublicKey", "iam", &["user", "change"]),
    row("DeleteTrail", "configuration", &["deletion"]),
    row("DeleteUser", "iam", &["user", "deletion"]),
    row("DeleteUserPermissionsBoundary", "iam", &["user", "change"]),
    row("DeleteUserPolicy", "iam", &["user", "change"]),
    row("DeleteVirtualMFADevice", "iam", &["user", "change"]),
    row("DescribeDBInstances", "database", &["info"]),
    row("DescribeInstances", "host", &["info"]),
    row("DescribeLoadBalancers", "network", &["info"]),
    row("DescribeNetworkAcls", "network", &["info"]),
    row("DescribeNetworkInterfaces", "network", &["info"]),
    row("DescribeRegions", "api", &["info"]),
    row("DescribeSecurityGroups", "network", &["info"]),
    row("DescribeTrails", "configuration", &["info"]),
    row("DescribeVolumes", "host", &["info"]),
    row("DescribeVpcs", "network", &["info"]),
    row("DetachGroupPolicy", "iam", &["group", "change"]),
    row("DetachUserPolicy", "iam", &["user", "change"]),
    row("EnableMFADevice", "iam", &["user", "change"]),
    row("GetCallerIdentity", "authentication", &["info"]),
    row("GetGroup", "iam", &["group", "info"]),
    row("GetGroupPolicy", "iam", &["group", "info"]),
    row("GetObject", "file", &["info"]),
    row("GetPolicy", "iam", &["info"]),
    row("GetUser", "iam", &["user", "info"]),
    row("GetUserPolicy", "iam", &["user", "info"]),
    row("HeadObject", "file", &["info"]),
    row("ListAttachedGroupPolicies", "iam", &["group", "info"]),
    row("ListAttachedRolePolicies", "iam", &["info"]),
    row("ListAttachedUserPolicies", "iam", &["user", "info"]),
    row("ListBuckets", "file", &["info"]),
    row("ListFunctions", "package", &["info"]),
    row("ListGroupPolicies", "iam", &["group", "info"]),
    row("ListGroups", "iam", &["group", "info"]),
    row("ListGroupsForUser", "iam", &["user", "info"]),
    row("ListInstanceAssociations", "host", &["info"]),
    row("ListObjects", "file", &["info"]),
    row("ListRoles", "iam", &["info"]),
    row("ListTables", "database", &["info"]),
    row("ListUserPolicies", "iam", &["user", "info"]),
    row("ListUserTags", "iam", &["user", "info"]),
    row("ListUsers", "iam", &["user", "info"]),
    row("OpenControlChannel", "session", &["start"]),
    row("OpenDataChannel", "session", &["start"]),
    row("Publish", "api", &[]),
    row("PutGroupPolicy", "iam", &["group", "change"]),
    row("PutObject", "file", &["change"]),
    row("PutUserPermissionsBoundary", "iam", &["user", "change"]),
    row("PutUserPolicy", "iam", &["user", "change"]),
    row("RemoveUserFromGroup", "iam", &["group", "change"]),
    row("SendCommand", "process", &[]),
    row("SetDefaultPolicyVersion", "iam", &["admin", "change"]),
    row("SetSecurityTokenServicePreferences", "iam", &["admin", "change"]),
    row("StartSession", "session", &["start"]),
    row("Subscribe", "configuration", &["change"]),
    row("TagUser", "iam", &["user", "change"]),
    row("TerminateSession", "session", &["end"]),
    row("UntagUser", "iam", &["user", "change"]),
    row("UpdateAccessKey", "iam", &["user", "change"]),
    row("UpdateAccountPasswordPolicy", "iam", &["admin", "change"]),
    row("UpdateGroup", "iam", &["group", "change"]),
    row("UpdateLoginProfile", "iam", &["user", "change"]),
    row("UpdateRole", "iam", &["admin", "change"]),
    row("UpdateSSHPublicKey", "iam", &["user", "change"]),
    row("UpdateUser", "iam", &["user", "change"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_row_is_found() {
        for row in ACTIONS {
            assert!(action(row.name).is_some_and(|found| std::ptr::eq(found, row)), "{}", row.name);
        }
    }
}
