//! Custom resources: from their definition to their removal, as kubectl sees them.

use super::{fails, group, has, is, refuses, works};

/// One definition a namespace, as groups of both versions run one after the other.
const CRD: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.{ns}.example.com}
spec:
  group: '{ns}.example.com'
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wdg]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What a widget should be.
            properties:
              color: {type: string, default: red, enum: [red, blue]}
              replicas: {type: integer, minimum: 0}
            x-kubernetes-validations:
            - {rule: '!has(self.replicas) || self.replicas < 10', message: too many}
          status:
            type: object
            properties:
              replicas: {type: integer}
";
const WIDGET: &str =
    "apiVersion: '{ns}.example.com/v1'\nkind: Widget\nmetadata: {name: w}\nspec: {replicas: 1}\n";
const GREEN: &str =
    "apiVersion: '{ns}.example.com/v1'\nkind: Widget\nmetadata: {name: g}\nspec: {color: green}\n";
const MANY: &str =
    "apiVersion: '{ns}.example.com/v1'\nkind: Widget\nmetadata: {name: m}\nspec: {replicas: 10}\n";
const UNKNOWN: &str =
    "apiVersion: '{ns}.example.com/v1'\nkind: Widget\nmetadata: {name: u}\nspec: {size: 1}\n";
const BLUE: &str =
    "apiVersion: '{ns}.example.com/v1'\nkind: Widget\nmetadata: {name: w}\nspec: {color: blue}\n";

#[test]
fn kubectl_custom_resources() {
    group(
        "custom",
        &[
            is("apply -f -", "customresourcedefinition.apiextensions.k8s.io/widgets.{ns}.example.com created").input(CRD),
            works("wait --for=condition=Established crd/widgets.{ns}.example.com --timeout=10s"),
            has("api-resources --api-group={ns}.example.com", &["widgets", "wdg", "{ns}.example.com/v1", "Widget"]).current(),
            is("apply -f -", "widget.{ns}.example.com/w created").input(WIDGET),
            is("apply -f -", "widget.{ns}.example.com/w unchanged").input(WIDGET),
            is("get wdg", "NAME   COLOR\nw      red"),
            is("scale widget.{ns}.example.com w --replicas=3", "widget.{ns}.example.com/w scaled"),
            is("get widgets.{ns}.example.com w -o jsonpath={.spec.replicas}:{.metadata.generation}", "3:2"),
            is("apply -f -", "widget.{ns}.example.com/w configured").input(WIDGET),
            is("get widgets.{ns}.example.com w -o jsonpath={.spec.replicas}:{.metadata.generation}", "1:3"),
            has("explain widgets.spec --api-version={ns}.example.com/v1", &["What a widget should be.", "color", "replicas"]).current(),
            fails("apply -f - --validate=false", "The Widget \"g\" is invalid: \n* spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"\n* <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation").input(GREEN).current(),
            fails("apply -f -", "The Widget \"m\" is invalid: spec: Invalid value: too many").input(MANY).current(),
            fails("apply -f -", "Error from server (BadRequest): error when creating \"STDIN\": Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.size\"").input(UNKNOWN).current(),
            // the default is its creator's, as upstream has it
            refuses("apply --server-side --field-manager=other -f -", "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using {ns}.example.com/v1: .spec.color").input(BLUE).current(),
            is("apply --server-side --force-conflicts --field-manager=other -f -", "widget.{ns}.example.com/w serverside-applied").input(BLUE).current(),
            has("get wdg w", &["blue"]).current(),
            is("delete crd widgets.{ns}.example.com", "customresourcedefinition.apiextensions.k8s.io \"widgets.{ns}.example.com\" deleted"),
            fails("get widgets.{ns}.example.com", "error: the server doesn't have a resource type \"widgets\""),
        ],
    );
}
