//! The operations of the three APIs: by which method and path each is asked for, and what this host does. The router reads
//! this table, and a test compares the page `host/docs/function-compute-api.md` with it.

use http::Method;

/// One of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Function Compute 2.0.
    V2016,
    /// Function Compute 2.0, for generated clients.
    V2021,
    /// Function Compute 3.0.
    V2023,
}

impl Api {
    /// All of them.
    pub const ALL: [Api; 3] = [Api::V2016, Api::V2021, Api::V2023];

    /// The version, which is the first segment of each path.
    pub fn as_str(self) -> &'static str {
        match self {
            Api::V2016 => "2016-08-15",
            Api::V2021 => "2021-04-06",
            Api::V2023 => "2023-03-30",
        }
    }

    /// Whether functions belong to services.
    pub fn has_services(self) -> bool {
        self != Api::V2023
    }
}

/// What an operation does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// What it does at Function Compute.
    Full,
    /// It keeps what it is given and gives it back; nothing comes of it, and the answer says so.
    Kept(&'static str),
    /// It answers that there is none.
    Empty(&'static str),
    /// It is refused.
    Refused(&'static str),
}

/// Declares the operations: the variant, and what is done.
macro_rules! operations {
    ($($op:ident $support:expr, $apis:ident: $($method:ident $path:literal),+;)*) => {
        /// An operation, by the name that the APIs' documents give it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op {
            $(#[doc = stringify!($op)] $op,)*
        }

        impl Op {
            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Op::$op => stringify!($op),)*
                }
            }

            /// What it does here.
            pub fn support(self) -> Support {
                use Support::{Empty, Full, Kept, Refused};
                match self {
                    $(Op::$op => $support,)*
                }
            }
        }

        /// All operations: the APIs that have one, its method and its path after the version.
        pub const OPERATIONS: &[(Op, &[Api], Method, &str)] = &[
            $($((Op::$op, $apis, Method::$method, $path),)+)*
        ];
    };
}

const BOTH: &[Api] = &[Api::V2016, Api::V2021];
const V2016: &[Api] = &[Api::V2016];
const V2021: &[Api] = &[Api::V2021];
const V2023: &[Api] = &[Api::V2023];
const ALL: &[Api] = &Api::ALL;

const NO_LAYERS: &str = "a component holds everything that it needs";
const NO_VPC: &str =
    "functions reach the network of the host, and the setting `allowedOutboundHosts` says which part of it";
const NO_SESSIONS: &str = "an instance is suspended and resumed by `/v1/functions/{name}/suspend`";
const NO_SNAPSHOTS: &str = "a parked instance stays in memory, and a stopped one is gone";
const PROVISIONED: &str = "of `LATEST` it is the setting `minInstances`; of others it is kept only";

operations! {
    CreateService Full, BOTH: POST "/services";
    ListServices Full, BOTH: GET "/services";
    GetService Full, BOTH: GET "/services/{s}";
    UpdateService Full, BOTH: PUT "/services/{s}";
    DeleteService Full, BOTH: DELETE "/services/{s}";

    CreateServiceFunction Full, BOTH: POST "/services/{s}/functions";
    CreateFunction Full, V2023: POST "/functions";
    ListServiceFunctions Full, BOTH: GET "/services/{s}/functions";
    ListFunctions Full, V2023: GET "/functions";
    GetServiceFunction Full, BOTH: GET "/services/{s}/functions/{f}";
    GetFunction Full, V2023: GET "/functions/{f}";
    UpdateServiceFunction Full, BOTH: PUT "/services/{s}/functions/{f}";
    UpdateFunction Full, V2023: PUT "/functions/{f}";
    DeleteServiceFunction Full, BOTH: DELETE "/services/{s}/functions/{f}";
    DeleteFunction Full, V2023: DELETE "/functions/{f}";
    GetServiceFunctionCode Full, BOTH: GET "/services/{s}/functions/{f}/code";
    GetFunctionCode Full, V2023: GET "/functions/{f}/code";

    InvokeServiceFunction Full, BOTH: POST "/services/{s}/functions/{f}/invocations";
    InvokeFunction Full, V2023: POST "/functions/{f}/invocations";
    DisableFunctionInvocation Full, V2023: POST "/functions/{f}/invoke/disable", PUT "/functions/{f}/invoke/disable";
    EnableFunctionInvocation Full, V2023: POST "/functions/{f}/invoke/enable", PUT "/functions/{f}/invoke/enable";

    PublishServiceVersion Full, BOTH: POST "/services/{s}/versions";
    ListServiceVersions Full, BOTH: GET "/services/{s}/versions";
    DeleteServiceVersion Full, BOTH: DELETE "/services/{s}/versions/{i}";
    PublishFunctionVersion Full, V2023: POST "/functions/{f}/versions";
    ListFunctionVersions Full, V2023: GET "/functions/{f}/versions";
    DeleteFunctionVersion Full, V2023: DELETE "/functions/{f}/versions/{i}";

    CreateServiceAlias Full, BOTH: POST "/services/{s}/aliases";
    ListServiceAliases Full, BOTH: GET "/services/{s}/aliases";
    GetServiceAlias Full, BOTH: GET "/services/{s}/aliases/{i}";
    UpdateServiceAlias Full, BOTH: PUT "/services/{s}/aliases/{i}";
    DeleteServiceAlias Full, BOTH: DELETE "/services/{s}/aliases/{i}";
    CreateAlias Full, V2023: POST "/functions/{f}/aliases";
    ListAliases Full, V2023: GET "/functions/{f}/aliases";
    GetAlias Full, V2023: GET "/functions/{f}/aliases/{i}";
    UpdateAlias Full, V2023: PUT "/functions/{f}/aliases/{i}";
    DeleteAlias Full, V2023: DELETE "/functions/{f}/aliases/{i}";

    CreateTrigger Full, ALL: POST "/services/{s}/functions/{f}/triggers", POST "/functions/{f}/triggers";
    ListTriggers Full, ALL: GET "/services/{s}/functions/{f}/triggers", GET "/functions/{f}/triggers";
    GetTrigger Full, ALL: GET "/services/{s}/functions/{f}/triggers/{i}", GET "/functions/{f}/triggers/{i}";
    UpdateTrigger Full, ALL: PUT "/services/{s}/functions/{f}/triggers/{i}", PUT "/functions/{f}/triggers/{i}";
    DeleteTrigger Full, ALL: DELETE "/services/{s}/functions/{f}/triggers/{i}", DELETE "/functions/{f}/triggers/{i}";

    PutAsyncInvokeConfig Full, ALL:
        PUT "/services/{s}/functions/{f}/async-invoke-config", PUT "/functions/{f}/async-invoke-config";
    GetAsyncInvokeConfig Full, ALL:
        GET "/services/{s}/functions/{f}/async-invoke-config", GET "/functions/{f}/async-invoke-config";
    DeleteAsyncInvokeConfig Full, ALL:
        DELETE "/services/{s}/functions/{f}/async-invoke-config", DELETE "/functions/{f}/async-invoke-config";
    ListAsyncInvokeConfigs Full, ALL:
        GET "/services/{s}/functions/{f}/async-invoke-configs", GET "/async-invoke-configs";
    ListStatefulAsyncInvocations Full, BOTH: GET "/services/{s}/functions/{f}/stateful-async-invocations";
    GetStatefulAsyncInvocation Full, BOTH: GET "/services/{s}/functions/{f}/stateful-async-invocations/{i}";
    StopStatefulAsyncInvocation Full, BOTH: PUT "/services/{s}/functions/{f}/stateful-async-invocations/{i}";
    ListAsyncTasks Full, V2023: GET "/functions/{f}/async-tasks";
    GetAsyncTask Full, V2023: GET "/functions/{f}/async-tasks/{i}";
    StopAsyncTask Full, V2023: PUT "/functions/{f}/async-tasks/{i}/stop";

    PutProvisionConfig Kept(PROVISIONED), ALL:
        PUT "/services/{s}/functions/{f}/provision-config", PUT "/functions/{f}/provision-config";
    GetProvisionConfig Kept(PROVISIONED), ALL:
        GET "/services/{s}/functions/{f}/provision-config", GET "/functions/{f}/provision-config";
    DeleteProvisionConfig Kept(PROVISIONED), V2023: DELETE "/functions/{f}/provision-config";
    ListProvisionConfigs Kept(PROVISIONED), ALL: GET "/provision-configs";
    PutOnDemandConfig Full, BOTH: PUT "/services/{s}/functions/{f}/on-demand-config";
    GetOnDemandConfig Full, BOTH: GET "/services/{s}/functions/{f}/on-demand-config";
    DeleteOnDemandConfig Full, BOTH: DELETE "/services/{s}/functions/{f}/on-demand-config";
    ListOnDemandConfigs Full, BOTH: GET "/on-demand-configs";
    PutConcurrencyConfig Full, V2023: PUT "/functions/{f}/concurrency";
    GetConcurrencyConfig Full, V2023: GET "/functions/{f}/concurrency";
    DeleteConcurrencyConfig Full, V2023: DELETE "/functions/{f}/concurrency";
    ListConcurrencyConfigs Full, V2023: GET "/concurrency-configs";
    PutScalingConfig Kept(PROVISIONED), V2023: PUT "/functions/{f}/scaling-config";
    GetScalingConfig Kept(PROVISIONED), V2023: GET "/functions/{f}/scaling-config";
    DeleteScalingConfig Kept(PROVISIONED), V2023: DELETE "/functions/{f}/scaling-config";
    ListScalingConfigs Kept(PROVISIONED), V2023: GET "/scaling-configs";
    ListInstances Full, ALL: GET "/services/{s}/functions/{f}/instances", GET "/functions/{f}/instances";

    TagResource Full, BOTH: POST "/tag";
    GetResourceTags Full, BOTH: GET "/tag";
    UntagResource Full, BOTH: DELETE "/tag", PUT "/tag";
    TagResources Full, V2023: POST "/tags-v2";
    ListTagResources Full, V2023: GET "/tags-v2";
    UntagResources Full, V2023: DELETE "/tags-v2";

    GetAccountSettings Full, BOTH: GET "/account-settings";
    GetTempBucketToken Full, V2016: GET "/tempBucketToken", GET "/services/{s}/tempCodeBucketToken";
    DescribeRegions Full, V2023: GET "/regions";
    ListReservedCapacities Empty("nothing is sold here"), BOTH: GET "/reservedCapacities", GET "/reserved-capacities";
    ListEventSources Empty("events come from triggers"), V2021: GET "/services/{s}/functions/{f}/event-sources";
    ListVpcBindings Empty(NO_VPC), ALL: GET "/services/{s}/bindings", GET "/functions/{f}/vpc-bindings";
    CreateVpcBinding Refused(NO_VPC), ALL: POST "/services/{s}/bindings", POST "/functions/{f}/vpc-bindings";
    DeleteVpcBinding Refused(NO_VPC), ALL: DELETE "/services/{s}/bindings/{i}", DELETE "/functions/{f}/vpc-bindings/{i}";

    CreateCustomDomain Full, ALL: POST "/custom-domains";
    ListCustomDomains Full, ALL: GET "/custom-domains";
    GetCustomDomain Full, ALL: GET "/custom-domains/{i}";
    UpdateCustomDomain Full, ALL: PUT "/custom-domains/{i}";
    DeleteCustomDomain Full, ALL: DELETE "/custom-domains/{i}";
    ListLayers Empty(NO_LAYERS), ALL: GET "/layers";
    CreateLayerVersion Refused(NO_LAYERS), ALL: POST "/layers/{i}/versions";
    CreateSession Refused(NO_SESSIONS), V2023: POST "/functions/{f}/sessions";
    ListSessions Empty(NO_SESSIONS), V2023: GET "/functions/{f}/sessions";
    CreateSnapshot Refused(NO_SNAPSHOTS), V2023: POST "/functions/{f}/snapshots";
    ListSnapshots Empty(NO_SNAPSHOTS), V2023: GET "/snapshots";
    InstanceExec Refused("a component has no shell"), BOTH: GET "/services/{s}/functions/{f}/instances/{i}/exec";
}

/// What a path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// The service, with its qualifier if the API has that there.
    pub(super) service: Option<String>,
    /// The function.
    pub(super) function: Option<String>,
    /// What is below: a version, an alias, a trigger.
    pub(super) item: Option<String>,
}

/// The operation that a method and the decoded segments after the version ask for, and what they name.
pub(super) fn find(api: Api, method: &Method, segments: &[String]) -> Option<(Op, Names)> {
    // One row has the path of an API with services and that of one without.
    let is_other = |path: &str| path.starts_with(if api.has_services() { "/functions" } else { "/services" });
    let mut own =
        OPERATIONS.iter().filter(|(_, apis, own, path)| apis.contains(&api) && own == method && !is_other(path));
    own.find_map(|(op, _, _, path)| Some((*op, names_in(path, segments)?)))
}

fn names_in(path: &str, segments: &[String]) -> Option<Names> {
    let mut names = Names::default();
    let mut pattern = path.split('/').skip(1);
    for segment in segments {
        match pattern.next()? {
            "{s}" => names.service = Some(segment.clone()),
            "{f}" => names.function = Some(segment.clone()),
            "{i}" => names.item = Some(segment.clone()),
            own if own == segment => {}
            _ => return None,
        }
    }
    pattern.next().is_none().then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(api: Api, method: &Method, path: &str) -> Option<(Op, Names)> {
        let segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        find(api, method, &segments)
    }

    #[test]
    fn a_path_leads_to_one_operation_of_its_api() {
        let (op, names) = found(Api::V2016, &Method::POST, "/services/s.prod/functions/f/invocations").unwrap();
        assert_eq!(op, Op::InvokeServiceFunction);
        assert_eq!((names.service.as_deref(), names.function.as_deref()), (Some("s.prod"), Some("f")));
        let (op, names) = found(Api::V2023, &Method::GET, "/functions/f/triggers/t").unwrap();
        assert_eq!((op, names.item.as_deref()), (Op::GetTrigger, Some("t")));
        assert_eq!(found(Api::V2021, &Method::PUT, "/tag").unwrap().0, Op::UntagResource);
        for (api, method, path) in [
            (Api::V2023, Method::GET, "/services"),
            (Api::V2016, Method::GET, "/functions/f"),
            (Api::V2016, Method::GET, "/functions/f/triggers"),
            (Api::V2023, Method::GET, "/services/s/functions/f/triggers"),
            (Api::V2016, Method::PATCH, "/services/s"),
            (Api::V2016, Method::GET, "/services/s/functions/f/code/more"),
            (Api::V2016, Method::GET, ""),
        ] {
            assert_eq!(found(api, &method, path), None, "{api:?} {method} {path}");
        }
    }

    #[test]
    fn no_two_operations_have_the_same_address() {
        for (index, (op, apis, method, path)) in OPERATIONS.iter().enumerate() {
            for (other, others, own, same) in &OPERATIONS[..index] {
                let shared = apis.iter().any(|api| others.contains(api));
                assert!(!(shared && method == own && path == same), "{op:?} and {other:?}: {method} {path}");
            }
        }
    }

    /// The table of the page: a row for each operation.
    fn table() -> String {
        let mut rows: Vec<(Op, String, Vec<String>)> = Vec::new();
        for (op, apis, method, path) in OPERATIONS {
            let apis: Vec<&str> = apis.iter().map(|api| &api.as_str()[..4]).collect();
            let address = format!("`{method} {path}`");
            match rows.iter_mut().find(|(own, ..)| own == op) {
                Some((_, _, addresses)) => addresses.push(address),
                None => rows.push((*op, apis.join(", "), vec![address])),
            }
        }
        let row = |(op, apis, addresses): &(Op, String, Vec<String>)| {
            let here = match op.support() {
                Support::Full => "yes".to_owned(),
                Support::Kept(why) => format!("partly: {why}"),
                Support::Empty(why) => format!("an empty list: {why}"),
                Support::Refused(why) => format!("refused: {why}"),
            };
            format!("| {} | {apis} | {} | {here} |", op.as_str(), addresses.join("<br>"))
        };
        rows.iter().map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_page_lists_every_operation() {
        let page = include_str!("../../docs/function-compute-api.md");
        let table = table();
        assert!(page.contains(&table), "the table of the page must be:\n{table}");
    }
}
