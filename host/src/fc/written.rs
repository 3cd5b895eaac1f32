//! A function as a deployment file writes it, as settings of this host: for the command line, which makes a manifest of one.

use serde_json::{Map, Value};

use super::api::Api;
use super::fault::Fault;
use super::function::{self, Change};
use super::input::Fields;
use super::request::Target;
use super::{asynchronous, domain, trigger};
use crate::catalog::SettingsSpec;
use crate::ids::{FunctionName, LATEST};
use crate::meter::Basis;

/// What components made of source code export.
const EXPORTS: [&str; 4] = ["handler", "initializer", "pre-freeze", "pre-stop"];

/// A function and what belongs to it, with the names that the APIs have for their fields.
pub struct Written<'a> {
    /// Its name on this host.
    pub name: &'a FunctionName,
    /// Its fields.
    pub fields: &'a Map<String, Value>,
    /// Its triggers.
    pub triggers: &'a [Map<String, Value>],
    /// The rules of its asynchronous invocations.
    pub asynchronous: Option<&'a Map<String, Value>>,
    /// Custom domains that lead to it.
    pub domains: &'a [Map<String, Value>],
}

impl Written<'_> {
    /// The settings, and what of it has no effect here; or what is wrong.
    pub fn settings(&self) -> Result<(SettingsSpec, Vec<String>), String> {
        self.translated().map_err(|fault| fault.message.into_owned())
    }

    fn translated(&self) -> Result<(SettingsSpec, Vec<String>), Fault> {
        let service = self.name.parts().0.map(str::to_owned);
        let api = if service.is_some() { Api::V2016 } else { Api::V2023 };
        let mut spec = function::new_settings(Basis::Duration);
        let exports = |name: &str| EXPORTS.contains(&name);
        let change = Change { name: self.name, api, is_new: true, has_code: true, exports: &exports };
        change.apply(&Fields::of(self.fields), &mut spec)?;
        let mut warnings = function::warnings(&spec.function_compute);
        let target = Target { service, name: self.name.clone(), qualifier: None };
        for trigger in self.triggers {
            let fields = Fields::of(trigger);
            let (name, kind) = (fields.required("triggerName")?, fields.required("triggerType")?);
            match trigger::spec(trigger, kind, &target)? {
                Some(spec_of) => drop(spec.triggers.insert(name.to_owned(), spec_of)),
                None => warnings.push(format!("trigger `{name}` of the type `{kind}` never fires here")),
            }
        }
        for domain in self.domains {
            spec.triggers.extend(domain::triggers_on(self.name, domain, &spec.triggers)?);
        }
        if let Some(config) = self.asynchronous {
            let fields = Fields::of(config);
            let qualifier = fields.text("qualifier")?.unwrap_or(LATEST).to_owned();
            warnings.extend(asynchronous::apply(&fields, spec.asynchronous.qualifiers.entry(qualifier).or_default())?);
        }
        Ok((spec, warnings))
    }
}
