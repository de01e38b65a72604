//! Who a node is to the API server: its user, and the group of all nodes (upstream: `pkg/auth/nodeidentifier`).

/// The group of all nodes.
pub const GROUP: &str = "system:nodes";
/// What the name of a node is preceded by in that of its user.
pub const USER_PREFIX: &str = "system:node:";

/// The user a node is.
#[must_use]
pub fn user(name: &str) -> String {
    format!("{USER_PREFIX}{name}")
}

/// The name of the node a user in these groups is; empty for one that names none.
#[must_use]
pub fn of_user<'u>(user: &'u str, groups: &[String]) -> Option<&'u str> {
    let name = user.strip_prefix(USER_PREFIX)?;
    groups.iter().any(|group| group == GROUP).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_must_not_be_taken_for_a_node_by_name_or_by_group_alone() {
        let nodes = [GROUP.to_owned()];
        assert_eq!(of_user(&user("n1"), &nodes), Some("n1"));
        assert_eq!(of_user("system:node:n1", &[]), None);
        assert_eq!(of_user("n1", &nodes), None);
        assert_eq!(of_user("system:nodes:n1", &nodes), None);
    }
}
