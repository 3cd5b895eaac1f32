//! Which function an address of its own leads to. Pure: made anew from the functions when they change.

use std::collections::HashMap;
use std::sync::Arc;

use super::Functions;
use super::trigger::{HttpTrigger, TriggerKind};
use crate::ids::FunctionName;

/// Addresses that functions have beside `/fn/{function}/...`.
#[derive(Debug, Default)]
pub struct Addresses {
    /// By host name; an empty one stands for any. Those with the longest path come first.
    by_host: HashMap<String, Vec<Arc<Address>>>,
}

/// An address, and where it leads.
#[derive(Debug)]
pub struct Address {
    /// The function.
    pub function: FunctionName,
    /// The name of its trigger.
    pub name: String,
    /// The version or alias; none: `LATEST`.
    pub qualifier: Option<String>,
    /// What the address is.
    pub trigger: HttpTrigger,
}

impl Addresses {
    /// The addresses of these functions.
    pub(super) fn of(functions: &Functions) -> Addresses {
        let mut by_host: HashMap<String, Vec<Arc<Address>>> = HashMap::new();
        for function in functions.values() {
            for (name, trigger) in function.triggers.iter().filter(|(_, trigger)| trigger.is_enabled()) {
                let Ok(TriggerKind::Http(http)) = trigger.check() else { continue };
                let (function, qualifier) = (function.name.clone(), trigger.qualifier.clone());
                let host = http.host.clone().unwrap_or_default();
                let address = Address { function, name: name.to_string(), qualifier, trigger: *http };
                by_host.entry(host).or_default().push(Arc::new(address));
            }
        }
        for addresses in by_host.values_mut() {
            addresses.sort_by_key(|address| (std::cmp::Reverse(address.trigger.path.len()), address.trigger.is_prefix));
        }
        Addresses { by_host }
    }

    /// The address that a request is for: one of its host name before one of any, and then the longest path.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Address>> {
        if self.by_host.is_empty() {
            return None;
        }
        let host = host.to_ascii_lowercase();
        let matches = |address: &&Arc<Address>| {
            let HttpTrigger { path: own, is_prefix, .. } = &address.trigger;
            if *is_prefix { path.starts_with(own.as_str()) } else { path == own }
        };
        let of = |host: &str| self.by_host.get(host).and_then(|addresses| addresses.iter().find(matches));
        of(&host).filter(|_| !host.is_empty()).or_else(|| of(""))
    }

    /// The functions that have addresses of this host name.
    pub fn functions_at(&self, host: &str) -> Vec<FunctionName> {
        let of_host = self.by_host.get(&host.to_ascii_lowercase()).into_iter().flatten();
        of_host.map(|address| address.function.clone()).collect()
    }

    /// Another function's address that is for the same requests as one of these.
    pub(super) fn taken(&self, function: &FunctionName, trigger: &HttpTrigger) -> Option<&Address> {
        let of_host = self.by_host.get(trigger.host.as_deref().unwrap_or_default())?;
        let others = of_host.iter().filter(|address| address.function != *function);
        others.map(|address| &**address).find(|address| address.trigger.collides_with(trigger))
    }
}
