import pytest

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.tasks.base import Task


def test_each_entry_point_is_a_task_of_its_name():
    assert {"class", "tags", "mask", "boxes"} <= set(tasks.names())
    for name in tasks.names():
        assert isinstance(tasks.find(name), Task)
        assert tasks.find(name).id == name


def test_an_unknown_task_is_told_the_nearest_one():
    with pytest.raises(UserError, match="Did you mean 'mask'"):
        tasks.find("masks")


@pytest.mark.parametrize("name", tasks.names())
def test_the_labels_choose_the_task(name):
    data = tasks.find(name).example()
    assert tasks.of(data) is tasks.find(name)
    assert tasks.chosen(data) == name
    assert tasks.chosen(data.hide()) is None


def test_where_several_are_known_the_class_comes_first():
    data = tasks.find("tags").example()
    both = data.with_columns(**{"class": (data["tags"] == 1).long().argmax(1)})
    assert tasks.chosen(both) == "class"
    assert tasks.chosen(both, "tags") == "tags"
