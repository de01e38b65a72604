use super::granting::Granting;
use super::*;

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
const TEMPLATES: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates";
const NEEDS_LABEL: &str = "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the \
                           containing namespace";

fn spec(access: Value) -> Value {
    let plain = json!({"name": "a", "exactly": {"deviceClassName": "gpu.example.com"}});
    let mut asking = plain.clone();
    asking["name"] = json!("b");
    asking["exactly"]["adminAccess"] = access;
    json!({"devices": {"requests": [plain, asking]}})
}

fn claim(name: &str, access: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec(access)})
}

fn template(name: &str, access: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"spec": spec(access)}})
}

#[tokio::test]
async fn a_namespace_without_the_label_must_not_get_devices_that_are_others() {
    let s = Server::start().await;
    let refusal = |kind: &str| {
        format!(
            "{kind}.resource.k8s.io \"c\" is invalid: spec.devices.requests[1].adminAccess: Forbidden: {NEEDS_LABEL}"
        )
    };
    assert_eq!(s.refused("POST", CLAIMS, claim("c", json!(true))).await, (422, refusal("ResourceClaim")));
    let refused = s.refused("POST", TEMPLATES, template("c", json!(true))).await;
    assert_eq!(refused, (422, refusal("ResourceClaimTemplate")));
    s.ok("POST", CLAIMS, claim("plain", json!(false))).await;
    s.ok("POST", TEMPLATES, template("plain", Value::Null)).await;
    for wrong in ["false", "True"] {
        let labels = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": wrong}}});
        s.patch("/api/v1/namespaces/default", "merge-patch+json", labels).await;
        assert_eq!(s.refused("POST", CLAIMS, claim("c", json!(true))).await.0, 422, "{wrong}");
    }
    let labels = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    s.patch("/api/v1/namespaces/default", "merge-patch+json", labels).await;
    s.ok("POST", CLAIMS, claim("c", json!(true))).await;
    s.ok("POST", TEMPLATES, template("c", json!(true))).await;
}

#[tokio::test]
async fn who_may_write_a_status_must_not_thereby_allocate_devices() {
    let but_binding = Granting::by(|_, info| info.subresource != "binding");
    let s = Server::with_hooks(Config::default(), but_binding).await;
    let made = s.ok("POST", CLAIMS, claim("c", Value::Null)).await;
    let mut bound = made;
    bound["status"] = json!({"allocation": {"devices": {"results": [
        {"request": "a", "driver": "gpu.example.com", "pool": "p", "device": "d"}]}}});
    let (code, text) = s.refused("PUT", &format!("{CLAIMS}/c/status"), bound).await;
    assert_eq!(code, 422);
    assert_eq!(
        text,
        "ResourceClaim.resource.k8s.io \"c\" is invalid: status.allocation: Forbidden: changing status.allocation or \
         status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"update\" permission: \
         resourceclaims.resource.k8s.io is forbidden: User \"admin\" cannot update resource \"resourceclaims/binding\" in API \
         group \"resource.k8s.io\" at the cluster scope"
    );
}
