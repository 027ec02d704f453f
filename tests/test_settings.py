"""Settings: three sources, one frozen result, every problem at once, no secret shown."""

from pathlib import Path

import pytest

from driftloop.schemas.errors import SettingsInvalid
from driftloop.settings import Settings, load_settings


def written(folder: Path, text: str) -> Path:
    file = folder / "driftloop.toml"
    file.write_text(text, "utf-8")
    return file


def test_the_environment_beats_the_file_and_the_file_beats_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, '[kafka]\n"bootstrap.servers" = "file:9092"\n[monitor]\nwarm_up_rows = 200\nsettle_rows = 900\n')
    settings = load_settings(
        file, {"DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": "environment:9092", "DRIFTLOOP_MONITOR__SETTLE_ROWS": "800"}
    )
    assert settings.bootstrap_servers == "environment:9092"
    assert (settings.monitor.warm_up_rows, settings.monitor.settle_rows) == (200, 800)
    assert settings.monitor.clip_sd == Settings().monitor.clip_sd


def test_any_librdkafka_property_passes_through(tmp_path: Path) -> None:
    file = written(tmp_path, '[kafka]\nsecurity.protocol = "SASL_SSL"\nsasl.username = "me"\n"socket.keepalive.enable" = true\n')
    settings = load_settings(file, {"DRIFTLOOP_KAFKA__SASL_PASSWORD": "hush"})
    assert settings.kafka == {
        "security.protocol": "SASL_SSL",
        "sasl.username": "me",
        "socket.keepalive.enable": "true",
        "sasl.password": "hush",
    }


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, "[monitor]\nwarm_up_row = 3\nclip_sd = -1\n[topics]\npartitions = 'many'\n")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(file, {"DRIFTLOOP_MONITR__CLIP_SD": "2"})
    assert len(caught.value.problems) == 4
    text = str(caught.value)
    assert "did you mean warm_up_rows" in text
    assert "monitor.clip_sd" in text
    assert "topics.partitions" in text
    assert "'monitr'" in text


@pytest.mark.parametrize("content", ["[kafka", "\udcff"])
def test_a_file_that_is_no_toml_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "driftloop.toml"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsInvalid, match="must be TOML"):
        load_settings(file, {})


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 20_000,
        "x = " + "{a=" * 10_000 + "1" + "}" * 10_000,
        "kafka." + "a." * 15_000 + "b = 1",
        "x = " + "[" * 60 + "]" * 60,
        "[monitor]\nmax_features = " + "9" * 5_000,
        "[kafka]\nlinger = 0x" + "f" * 50_000,
        "[monitor]\nmax_features = 99999999999999999999",
        "# " + "x" * 10_000_000,
        'prefix = "' + "x" * 10_000_000,
    ],
    ids=[
        "arrays",
        "tables",
        "keys",
        "closed arrays",
        "digits",
        "hex digits",
        "beyond 64 bits",
        "comment of 10 MB",
        "text of 10 MB",
    ],
)
def test_a_bomb_of_toml_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"settings file must .*driftloop\.toml") as caught:
        load_settings(written(tmp_path, text), {})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS", "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS"),
        ("DRIFTLOOP_KAFKA_SASL_PASSWORD", "DRIFTLOOP_KAFKA__SASL_PASSWORD"),
        ("DRIFTLOOP_BOOTSTRAP_SERVERS", "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS"),
        ("DRIFTLOOP_STORE_URL", "DRIFTLOOP_STORE__URL"),
        ("DRIFTLOOP_DATA_PLANE_SLOT", "DRIFTLOOP_DATA_PLANE__SLOT"),
        ("DRIFTLOOP_WARM_UP_ROWS", "DRIFTLOOP_MONITOR__WARM_UP_ROWS"),
    ],
)
def test_a_variable_with_one_underscore_is_told(variable: str, meant: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"two underscores .*{meant}, got {variable}$"):
        load_settings(None, {variable: "canary"})


@pytest.mark.parametrize(
    "variable",
    [
        "DRIFTLOOP_KAFKA_LIBS",
        "DRIFTLOOP_DISABLED",
        "DRIFTLOOP_KAFKA_SERVICE_HOST",
        "DRIFTLOOP_KAFKA_PORT_9092_TCP",
        "DRIFTLOOP_DEBUG",
    ],
)
def test_a_variable_that_is_no_setting_is_left_alone(variable: str) -> None:
    assert load_settings(None, {variable: "x"}) == Settings()


def test_a_missing_file_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"absent\.toml"):
        load_settings(tmp_path / "absent.toml", {})


def test_no_secret_is_shown() -> None:
    settings = load_settings(None, {"DRIFTLOOP_KAFKA__SASL_PASSWORD": "canary", "DRIFTLOOP_KAFKA__SSL_KEY_PASSWORD": "canary"})
    assert "canary" not in repr(settings) + str(settings) + str(settings.redacted())
    assert settings.kafka["sasl.password"] == "canary"


def test_a_wrong_secret_is_not_quoted() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(None, {"DRIFTLOOP_STORE__PASSWORD": "canary"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'store = "s3://a:canary@b"',
        'kafka = "sasl.password=canary"',
        "[kafka.sasl]\npassword = ['canary']",
        '[kafka]\n"group.id" = ["canary"]',
        '[store]\nurl = ["s3://a:canary@b"]',
        '[kafka]\n"sasl.password" = "canary',
        '[kafka]\n"sasl.password" = "canary"\n"sasl.password" = "canary"',
        '[kafkaa]\npassword = "canary"',
    ],
)
def test_no_refused_value_that_may_be_a_secret_is_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(written(tmp_path, text), {})
    assert "canary" not in str(caught.value)


def test_the_password_of_the_store_is_shown_nowhere() -> None:
    settings = load_settings(None, {"DRIFTLOOP_STORE__URL": "s3://a:canary@b/models"})
    assert "canary" not in repr(settings) + str(settings) + str(settings.redacted()) + repr(settings.store) + str(settings.store)
    assert "/models" in repr(settings)
    assert settings.store.url == "s3://a:canary@b/models"
    assert settings.scrubbed("AccessDenied: s3://a:canary@b, key canary") == "AccessDenied: s3://****, key ****"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().topics = None  # type: ignore[assignment,misc]


def test_groups_carry_the_topic_prefix() -> None:
    one, other = (load_settings(environment={"DRIFTLOOP_TOPICS__PREFIX": prefix}) for prefix in ("one.", "other."))
    assert (Settings().monitor_group, Settings().worker_group) == ("driftloop.monitor", "driftloop.worker")
    assert (one.monitor_group, one.worker_group) == ("one.monitor", "one.worker")
    assert {one.monitor_group, one.worker_group}.isdisjoint({other.monitor_group, other.worker_group})
    named = load_settings(environment={"DRIFTLOOP_DATA_PLANE__GROUP": "mine", "DRIFTLOOP_WORKER__GROUP": "theirs"})
    assert (named.monitor_group, named.worker_group) == ("driftloop.mine", "driftloop.theirs")
