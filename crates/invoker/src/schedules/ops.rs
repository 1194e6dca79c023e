//! The operations of AWS's `scheduler` API. Inputs were checked against its model.

use jiff::Timestamp;
use lambent_model::{AccountId, RequestId};
use lambent_store::port::{Expect, Write};
use lambent_store::record as documents;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::record::{Definition, FORMAT, Group, Tag, Wanted, seconds};
use super::{Book, DEFAULT_GROUP, Error, GROUPS, Schedules};

/// Entries of a page, where nothing else is asked for.
const PAGE: usize = 100;
/// Tags of a group.
const MOST_TAGS: usize = 50;

type Input = Map<String, Value>;

fn text<'a>(input: &'a Input, name: &str) -> Option<&'a str> {
    input.get(name).and_then(Value::as_str)
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::Validation(format!("{error}.")))
}

fn owned(input: &Input, name: &str) -> String {
    text(input, name).unwrap_or_default().to_owned()
}

fn group_name(input: &Input) -> String {
    text(input, "GroupName").unwrap_or(DEFAULT_GROUP).to_owned()
}

fn no_schedule(name: &str) -> Error {
    Error::NotFound(format!("Schedule {name} does not exist."))
}

fn no_group(name: &str) -> Error {
    Error::NotFound(format!("Schedule group {name} does not exist."))
}

impl Schedules {
    /// Answers an operation; none where it is not known.
    pub async fn call(&self, account: &AccountId, operation: &str, input: Input) -> Option<Result<Value, Error>> {
        Some(match operation {
            "CreateSchedule" => self.create_schedule(account, input).await,
            "UpdateSchedule" => self.update_schedule(account, input).await,
            "GetSchedule" => self.get_schedule(account, &input).await,
            "DeleteSchedule" => self.delete_schedule(account, &input).await,
            "ListSchedules" => self.list_schedules(account, &input).await,
            "CreateScheduleGroup" => self.create_group(account, input).await,
            "GetScheduleGroup" => self.get_group(account, &input).await,
            "DeleteScheduleGroup" => self.delete_group(account, &input).await,
            "ListScheduleGroups" => self.list_groups(account, &input).await,
            "ListTagsForResource" => self.list_tags(account, &input).await,
            "TagResource" => self.tag(account, input).await,
            "UntagResource" => self.untag(account, &input).await,
            _ => return None,
        })
    }

    fn group(&self, book: &Book, account: &AccountId, name: &str) -> Option<Group> {
        let found = book.groups.get(&(account.to_string(), name.to_owned())).cloned();
        found.or_else(|| {
            (name == DEFAULT_GROUP).then(|| Group {
                region: self.region.clone(),
                account: account.clone(),
                name: DEFAULT_GROUP.to_owned(),
                created: Timestamp::UNIX_EPOCH,
                modified: Timestamp::UNIX_EPOCH,
                tags: Vec::new(),
                client_token: None,
            })
        })
    }

    fn definition(&self, account: &AccountId, input: &Input) -> Result<Definition, Error> {
        let wanted: Wanted = typed(Value::Object(input.clone()))?;
        wanted.check()?;
        let now = self.clock.now();
        Ok(Definition {
            region: self.region.clone(),
            account: account.clone(),
            group: group_name(input),
            name: owned(input, "Name"),
            wanted,
            created: now,
            modified: now,
            generation: RequestId::random(),
            client_token: text(input, "ClientToken").map(str::to_owned),
        })
    }

    async fn create_schedule(&self, account: &AccountId, input: Input) -> Result<Value, Error> {
        let definition = self.definition(account, &input)?;
        let mut book = self.book.write().await;
        if self.group(&book, account, &definition.group).is_none() {
            return Err(no_group(&definition.group));
        }
        if let Some(there) = book.schedules.get(&super::key(&definition)) {
            let is_repeated = definition.client_token.is_some() && definition.client_token == there.client_token;
            if is_repeated && there.wanted == definition.wanted {
                return Ok(json!({ "ScheduleArn": there.arn() }));
            }
            return Err(Error::Conflict(format!("Schedule {} already exists.", definition.name)));
        }
        let arn = definition.arn();
        self.keep(&mut book, definition).await?;
        Ok(json!({ "ScheduleArn": arn }))
    }

    async fn update_schedule(&self, account: &AccountId, input: Input) -> Result<Value, Error> {
        let mut definition = self.definition(account, &input)?;
        let mut book = self.book.write().await;
        let there = book.schedules.get(&super::key(&definition)).ok_or_else(|| no_schedule(&definition.name))?;
        definition.created = there.created;
        let arn = definition.arn();
        self.keep(&mut book, definition).await?;
        Ok(json!({ "ScheduleArn": arn }))
    }

    async fn get_schedule(&self, account: &AccountId, input: &Input) -> Result<Value, Error> {
        let book = self.book.read().await;
        let found = find(&book, account, input)?;
        let Ok(Value::Object(mut shown)) = serde_json::to_value(&found.wanted) else { return Err(no_schedule("")) };
        shown.extend(summary(found));
        shown.insert("Target".to_owned(), serde_json::to_value(&found.wanted.target).unwrap_or_default());
        Ok(Value::Object(shown))
    }

    async fn delete_schedule(&self, account: &AccountId, input: &Input) -> Result<Value, Error> {
        let mut book = self.book.write().await;
        let definition = find(&book, account, input)?.clone();
        self.forget(&mut book, &definition).await?;
        Ok(json!({}))
    }

    async fn list_schedules(&self, account: &AccountId, input: &Input) -> Result<Value, Error> {
        let book = self.book.read().await;
        if let Some(name) = text(input, "GroupName")
            && self.group(&book, account, name).is_none()
        {
            return Err(no_group(name));
        }
        let wanted = |found: &&Definition| {
            found.account == *account
                && text(input, "GroupName").is_none_or(|group| found.group == group)
                && text(input, "NamePrefix").is_none_or(|prefix| found.name.starts_with(prefix))
                && text(input, "State").is_none_or(|state| json!(found.wanted.state) == state)
        };
        let named =
            book.schedules.values().filter(wanted).map(|found| (format!("{}!{}", found.group, found.name), found));
        let (page, next) = page(input, named);
        let schedules: Vec<Value> = page.into_iter().map(|found| Value::Object(summary(found))).collect();
        Ok(listed("Schedules", schedules, next))
    }

    async fn create_group(&self, account: &AccountId, input: Input) -> Result<Value, Error> {
        let (name, now) = (owned(&input, "Name"), self.clock.now());
        let mut book = self.book.write().await;
        let client_token = text(&input, "ClientToken").map(str::to_owned);
        if let Some(there) = self.group(&book, account, &name) {
            if client_token.is_some() && there.client_token == client_token {
                return Ok(json!({ "ScheduleGroupArn": there.arn() }));
            }
            return Err(Error::Conflict(format!("Schedule group {name} already exists.")));
        }
        let tags = tags(&input)?;
        let (region, account) = (self.region.clone(), account.clone());
        let group = Group { region, account, name, created: now, modified: now, tags, client_token };
        let arn = group.arn();
        self.keep_group(&mut book, group).await?;
        Ok(json!({ "ScheduleGroupArn": arn }))
    }

    async fn keep_group(&self, book: &mut Book, group: Group) -> Result<(), Error> {
        let (key, value) = (group_path(&group), Some(documents::write(FORMAT, &group)?));
        self.catalog.commit(vec![Write { key, expect: Expect::Anything, value }]).await?;
        book.groups.insert((group.account.to_string(), group.name.clone()), group);
        Ok(())
    }

    async fn get_group(&self, account: &AccountId, input: &Input) -> Result<Value, Error> {
        let (book, name) = (self.book.read().await, owned(input, "Name"));
        self.group(&book, account, &name).map(|group| shown(&group)).ok_or_else(|| no_group(&name))
    }

    /// Deletes a group and its schedules at once; AWS takes its time for the schedules.
    async fn delete_group(&self, account: &AccountId, input: &Input) -> Result<Value, Error> {
        let (mut book, name) = (self.book.write().await, owned(input, "Name"));
        if name == DEFAULT_GROUP {
            return Err(Error::Validation("The default schedule group cannot be deleted.".to_owned()));
        }
        let group = self.group(&book, account, &name).ok_or_else(|| no_group(&name))?;
        let within = |found: &&Definition| found.account == *account && found.group == name;
        let schedules: Vec<Definition> = book.schedules.values().filter(within).cloned().collect();
        for definition in &schedules {
            self.forget(&mut book, definition).await?;
        }
        self.catalog.commit(vec![Write { key: group_path(&group), expect: Expect::Anything, value: None }]).await?;
        book.groups.remove(&(account.to_string(), name));
        Ok(json!({}))
    }

    async fn list_groups(&self, account: &AccountId, input: &Input) -> Result<Value, Error> {
        let book = self.book.read().await;
        let mut groups: Vec<Group> = book.groups.values().filter(|group| group.account == *account).cloned().collect();
        groups.extend(self.group(&book, account, DEFAULT_GROUP));
        groups.retain(|group| text(input, "NamePrefix").is_none_or(|prefix| group.name.starts_with(prefix)));
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        groups.dedup_by(|one, other| one.name == other.name);
        let (page, next) = page(input, groups.iter().map(|group| (group.name.clone(), group)));
        Ok(listed("ScheduleGroups", page.into_iter().map(shown).collect(), next))
    }

    fn tagged(&self, book: &Book, account: &AccountId, input: &Input) -> Result<Group, Error> {
        let arn = text(input, "ResourceArn").unwrap_or_default();
        let name = arn.rsplit_once("schedule-group/").map_or("", |(_, name)| name);
        let group = self.group(book, account, name).filter(|group| group.arn() == arn);
        group.ok_or_else(|| no_group(name))
    }

    async fn list_tags(&self, account: &AccountId, input: &Input) -> Result<Value, Error> {
        let book = self.book.read().await;
        Ok(json!({ "Tags": self.tagged(&book, account, input)?.tags }))
    }

    async fn tag(&self, account: &AccountId, input: Input) -> Result<Value, Error> {
        let mut book = self.book.write().await;
        let mut group = self.tagged(&book, account, &input)?;
        for tag in tags(&input)? {
            group.tags.retain(|other| other.key != tag.key);
            group.tags.push(tag);
        }
        if group.tags.len() > MOST_TAGS {
            return Err(Error::Validation(format!("A schedule group has at most {MOST_TAGS} tags.")));
        }
        self.keep_group(&mut book, group).await?;
        Ok(json!({}))
    }

    async fn untag(&self, account: &AccountId, input: &Input) -> Result<Value, Error> {
        let mut book = self.book.write().await;
        let mut group = self.tagged(&book, account, input)?;
        let keys = input.get("TagKeys").and_then(Value::as_array).cloned().unwrap_or_default();
        group.tags.retain(|tag| !keys.iter().any(|key| key.as_str() == Some(&tag.key)));
        self.keep_group(&mut book, group).await?;
        Ok(json!({}))
    }
}

fn tags(input: &Input) -> Result<Vec<Tag>, Error> {
    input.get("Tags").cloned().map_or(Ok(Vec::new()), typed)
}

fn find<'a>(book: &'a Book, account: &AccountId, input: &Input) -> Result<&'a Definition, Error> {
    let name = owned(input, "Name");
    let key = (account.to_string(), group_name(input), name.clone());
    book.schedules.get(&key).ok_or_else(|| no_schedule(&name))
}

fn group_path(group: &Group) -> String {
    format!("{GROUPS}{}/{}", group.account, group.name)
}

fn summary(found: &Definition) -> Input {
    let shown = json!({
        "Arn": found.arn(),
        "Name": found.name,
        "GroupName": found.group,
        "State": found.wanted.state,
        "CreationDate": seconds(found.created),
        "LastModificationDate": seconds(found.modified),
        "Target": { "Arn": found.wanted.target.arn },
    });
    if let Value::Object(shown) = shown { shown } else { Input::new() }
}

fn shown(group: &Group) -> Value {
    json!({
        "Arn": group.arn(),
        "Name": group.name,
        "State": "ACTIVE",
        "CreationDate": seconds(group.created),
        "LastModificationDate": seconds(group.modified),
    })
}

/// One page of what is in order, and the token of the next: the last name of this one.
fn page<T>(input: &Input, all: impl Iterator<Item = (String, T)>) -> (Vec<T>, Option<String>) {
    let most = input.get("MaxResults").and_then(Value::as_u64).map_or(PAGE, |most| most as usize);
    let after = text(input, "NextToken").map(str::to_owned);
    let mut rest = all.filter(|(name, _)| after.as_ref().is_none_or(|after| name > after)).peekable();
    let (mut found, mut last) = (Vec::new(), None);
    while found.len() < most
        && let Some((name, entry)) = rest.next()
    {
        found.push(entry);
        last = Some(name);
    }
    (found, last.filter(|_| rest.peek().is_some()))
}

fn listed(name: &str, entries: Vec<Value>, next: Option<String>) -> Value {
    let mut answer = Input::new();
    answer.insert(name.to_owned(), Value::Array(entries));
    answer.extend(next.map(|next| ("NextToken".to_owned(), Value::String(next))));
    Value::Object(answer)
}
