//! Random operations on one function against a tiny model of what AWS promises, compared after each step, also over
//! restarts.

use std::collections::BTreeMap;

use lambent_model::Qualifier;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Create,
    Update,
    Publish,
    DeleteVersion(u64),
    PointAlias(u64),
    DeleteAlias,
    DeleteFunction,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Create),
        3 => Just(Step::Update),
        4 => Just(Step::Publish),
        2 => (1..6_u64).prop_map(Step::DeleteVersion),
        3 => (1..6_u64).prop_map(Step::PointAlias),
        1 => Just(Step::DeleteAlias),
        1 => Just(Step::DeleteFunction),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..14)
}

/// What should be there. A function's content is told by its time-out.
#[derive(Debug, Default)]
struct Model {
    function: Option<Function>,
    next_version: u64,
    next_timeout: u32,
}

#[derive(Debug, Default)]
struct Function {
    timeout: u32,
    versions: BTreeMap<u64, u32>,
    alias: Option<u64>,
}

async fn take(world: &World, model: &mut Model, step: &Step) {
    let (registry, caller) = (&world.registry, &world.caller);
    let name = || "f".to_owned();
    match step {
        Step::Create => {
            let created = registry.create_function(caller, World::request("f")).await;
            assert_eq!(created.is_ok(), model.function.is_none());
            model.function.get_or_insert_with(|| Function { timeout: 3, ..Function::default() });
        }
        Step::Update => {
            model.next_timeout += 1;
            let timeout = 3 + model.next_timeout;
            let request = UpdateFunctionConfigurationRequest {
                function_name: name(),
                timeout: Some(timeout),
                ..UpdateFunctionConfigurationRequest::default()
            };
            let updated = registry.update_function_configuration(caller, request).await;
            assert_eq!(updated.is_ok(), model.function.is_some());
            if let Some(function) = &mut model.function {
                function.timeout = timeout;
            }
        }
        Step::Publish => {
            let request = PublishVersionRequest { function_name: name(), ..PublishVersionRequest::default() };
            let published = registry.publish_version(caller, request).await;
            let Some(function) = &mut model.function else { return assert!(published.is_err()) };
            if function.versions.values().next_back() != Some(&function.timeout) {
                model.next_version += 1;
                function.versions.insert(model.next_version, function.timeout);
            }
            let last = *function.versions.keys().next_back().unwrap();
            assert_eq!(published.unwrap().version, Some(last.to_string()));
        }
        Step::DeleteVersion(number) => {
            let request = DeleteFunctionRequest { function_name: name(), qualifier: Some(number.to_string()) };
            let deleted = registry.delete_function(caller, request).await;
            let Some(function) = &mut model.function else { return assert!(deleted.is_err()) };
            assert_eq!(deleted.is_ok(), function.alias != Some(*number));
            if deleted.is_ok() {
                function.versions.remove(number);
            }
        }
        Step::PointAlias(number) => {
            let Some(function) = &mut model.function else { return };
            let is_there = function.versions.contains_key(number);
            let version = number.to_string();
            let pointed = match function.alias {
                Some(_) => {
                    let function_version = Some(version);
                    let request = UpdateAliasRequest {
                        function_name: name(),
                        name: "live".to_owned(),
                        function_version,
                        ..UpdateAliasRequest::default()
                    };
                    registry.update_alias(caller, request).await
                }
                None => {
                    let request = CreateAliasRequest {
                        function_name: name(),
                        name: "live".to_owned(),
                        function_version: version,
                        ..CreateAliasRequest::default()
                    };
                    registry.create_alias(caller, request).await
                }
            };
            assert_eq!(pointed.is_ok(), is_there);
            if is_there {
                function.alias = Some(*number);
            }
        }
        Step::DeleteAlias => {
            let request = DeleteAliasRequest { function_name: name(), name: "live".to_owned() };
            assert_eq!(registry.delete_alias(caller, request).await.is_ok(), model.function.is_some());
            if let Some(function) = &mut model.function {
                function.alias = None;
            }
        }
        Step::DeleteFunction => {
            let request = DeleteFunctionRequest { function_name: name(), qualifier: None };
            assert_eq!(registry.delete_function(caller, request).await.is_ok(), model.function.is_some());
            model.function = None;
        }
        Step::Restart => {}
    }
}

async fn compare(world: &World, model: &Model) {
    let arn = world.arn("f");
    let timeout = |qualifier: Option<&str>| {
        let qualifier: Option<Qualifier> = qualifier.map(|text| text.parse().unwrap());
        let resolved = world.registry.resolve(&arn, qualifier.as_ref()).ok()?;
        Some(resolved.version.timeout.as_secs() as u32)
    };
    if model.function.is_some() {
        world.settle("f").await;
    }
    let function = model.function.as_ref();
    assert_eq!(timeout(None), function.map(|function| function.timeout));
    for number in 1..20 {
        let expected = function.and_then(|function| function.versions.get(&number).copied());
        assert_eq!(timeout(Some(&number.to_string())), expected, "version {number}");
    }
    let expected = function.and_then(|function| function.versions.get(&function.alias?).copied());
    assert_eq!(timeout(Some("live")), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_function_is_what_its_history_makes_it(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut world = World::on(dir.path(), Arc::new(Told::default())).await;
            let mut model = Model::default();
            for step in &steps {
                if matches!(step, Step::Restart) {
                    world.registry.shutdown().await;
                    drop(world);
                    world = World::on(dir.path(), Arc::new(Told::default())).await;
                }
                take(&world, &mut model, step).await;
                compare(&world, &model).await;
            }
            world.registry.shutdown().await;
        });
    }
}
