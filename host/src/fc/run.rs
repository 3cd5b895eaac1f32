//! Which file carries an operation out.

use std::future;

use futures::future::BoxFuture;

use super::api::{Op, Support};
use super::fault::Fault;
use super::request::{Asked, Reply};
use super::{Fc, alias, asynchronous, domain, files, functions, other, scaling, service, tag, trigger, version};

impl Fc {
    /// Carries an operation out.
    pub(super) fn run<'a>(&'a self, asked: &'a Asked) -> BoxFuture<'a, Result<Reply, Fault>> {
        match asked.op {
            Op::CreateService => Box::pin(service::create(self, asked)),
            Op::ListServices => ready(service::list(self, asked)),
            Op::GetService => ready(service::get(self, asked)),
            Op::UpdateService => Box::pin(service::update(self, asked)),
            Op::DeleteService => Box::pin(service::delete(self, asked)),
            Op::CreateServiceFunction | Op::CreateFunction => Box::pin(functions::create(self, asked)),
            Op::ListServiceFunctions | Op::ListFunctions => ready(functions::list(self, asked)),
            Op::GetServiceFunction | Op::GetFunction => ready(functions::get(self, asked)),
            Op::UpdateServiceFunction | Op::UpdateFunction => Box::pin(functions::update(self, asked)),
            Op::DeleteServiceFunction | Op::DeleteFunction => Box::pin(functions::delete(self, asked)),
            Op::GetServiceFunctionCode | Op::GetFunctionCode => Box::pin(functions::code(self, asked)),
            Op::DisableFunctionInvocation => Box::pin(functions::allow_invocation(self, asked, false)),
            Op::EnableFunctionInvocation => Box::pin(functions::allow_invocation(self, asked, true)),
            Op::PublishServiceVersion | Op::PublishFunctionVersion => Box::pin(version::publish(self, asked)),
            Op::ListServiceVersions | Op::ListFunctionVersions => ready(version::list(self, asked)),
            Op::DeleteServiceVersion | Op::DeleteFunctionVersion => Box::pin(version::delete(self, asked)),
            Op::CreateServiceAlias | Op::CreateAlias => Box::pin(alias::create(self, asked)),
            Op::ListServiceAliases | Op::ListAliases => ready(alias::list(self, asked)),
            Op::GetServiceAlias | Op::GetAlias => ready(alias::get(self, asked)),
            Op::UpdateServiceAlias | Op::UpdateAlias => Box::pin(alias::update(self, asked)),
            Op::DeleteServiceAlias | Op::DeleteAlias => Box::pin(alias::delete(self, asked)),
            Op::CreateTrigger => Box::pin(trigger::create(self, asked)),
            Op::ListTriggers => ready(trigger::list(self, asked)),
            Op::GetTrigger => ready(trigger::get(self, asked)),
            Op::UpdateTrigger => Box::pin(trigger::update(self, asked)),
            Op::DeleteTrigger => Box::pin(trigger::delete(self, asked)),
            Op::PutAsyncInvokeConfig => Box::pin(asynchronous::put(self, asked)),
            Op::GetAsyncInvokeConfig => ready(asynchronous::get(self, asked)),
            Op::DeleteAsyncInvokeConfig => Box::pin(asynchronous::delete(self, asked)),
            Op::ListAsyncInvokeConfigs => ready(asynchronous::list(self, asked)),
            Op::ListStatefulAsyncInvocations | Op::ListAsyncTasks => {
                Box::pin(asynchronous::list_invocations(self, asked))
            }
            Op::GetStatefulAsyncInvocation | Op::GetAsyncTask => Box::pin(asynchronous::get_invocation(self, asked)),
            Op::StopStatefulAsyncInvocation | Op::StopAsyncTask => Box::pin(asynchronous::stop_invocation(self, asked)),
            Op::CreateCustomDomain => Box::pin(domain::create(self, asked)),
            Op::ListCustomDomains => ready(domain::list(self, asked)),
            Op::GetCustomDomain => ready(domain::get(self, asked)),
            Op::UpdateCustomDomain => Box::pin(domain::update(self, asked)),
            Op::DeleteCustomDomain => Box::pin(domain::delete(self, asked)),
            Op::ListInstances => ready(other::instances(self, asked)),
            Op::TagResource | Op::TagResources => Box::pin(tag::change(self, asked, true)),
            Op::UntagResource | Op::UntagResources => Box::pin(tag::change(self, asked, false)),
            Op::GetResourceTags => ready(tag::get(self, asked)),
            Op::ListTagResources => ready(tag::list(self, asked)),
            Op::GetAccountSettings => ready(Ok(other::account())),
            Op::DescribeRegions => ready(Ok(other::regions())),
            Op::GetTempBucketToken => ready(Ok(files::token(self))),
            other => match other.support() {
                Support::Empty(_) => ready(other::nothing(self, asked)),
                Support::Refused(why) => ready(Err(Fault::invalid(format!("{} is not there: {why}", other.as_str())))),
                Support::Full | Support::Kept(_) => Box::pin(scaling::run(self, asked)),
            },
        }
    }
}

fn ready<'a>(done: Result<Reply, Fault>) -> BoxFuture<'a, Result<Reply, Fault>> {
    Box::pin(future::ready(done))
}
