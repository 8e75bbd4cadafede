"""Assignments ask and hide what they should, and tell a right answer from a wrong one."""

import ast
import os
import re
import shutil
import sysconfig

import nbformat
import pytest

from tests.conftest import ROOT
from tests.one_kernel import errors, execute_in_one_kernel

FOLDER = ROOT / "docs" / "assignments"
PATHS = sorted(FOLDER.glob("*.ipynb"))
GRADED = "03_methods_compared"  # needs no model
# Each passes the checks that students see.
WRONG = {
    "level-answer": """
def above_chance(score, chance, oracle):
    return (score - chance) / (1 - chance)
""",
    "verdict-answer": """
def verdict(a, b, margin):
    return 'yes' if (a - b).mean() > margin else 'cannot tell'
""",
    "needed-answer": """
def images_needed(low, high, n, margin):
    return int(n * ((high - low) / (2 * margin)) ** 2)
""",
    "blind-answer": """
def without_looking(shape):
    return np.ones(shape)
""",
}


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    return nbformat.read(path, as_version=4).cells


def marked(cells, **marks):
    """The cells whose nbgrader metadata say so, by their id."""
    chosen = {}
    for cell in cells:
        if marks.items() <= cell.metadata.get("nbgrader", {}).items():
            chosen[cell.id] = cell
    return chosen


def id_of_test(name):
    """The id of the cell that tests an answer."""
    return f"{name.removesuffix('-answer')}-test"


def answers(cells):
    """Id of the answer -> the function that it defines."""
    functions = {}
    for name, cell in marked(cells, solution=True, grade=False).items():
        functions[name] = ast.parse(cell.source).body[0].name
    return functions


def test_every_function_is_asked_for_and_tested_in_the_open_and_in_hiding(cells):
    for name, function in answers(cells).items():
        parts = marked(cells)[id_of_test(name)].source.split("### BEGIN HIDDEN TESTS")
        assert len(parts) == 2
        for part in parts:
            assert f"{function}(" in part, name
            assert "assert" in part, name


def test_students_may_change_their_answers_only(cells):
    for cell in cells:
        marks = cell.metadata.nbgrader
        assert marks.locked != marks.solution


@pytest.fixture(scope="module")
def executed():
    """Every assignment with its solutions, executed."""
    notebooks = {path: nbformat.read(path, as_version=4) for path in PATHS}
    execute_in_one_kernel(notebooks.values())
    return notebooks


@pytest.mark.slow
def test_solutions_pass_and_the_figure_is_drawn(path, executed):
    notebook = executed[path]
    assert not errors(notebook)
    figure = marked(notebook.cells, grade=False, locked=True)["figure"]
    types = [set(output.get("data", {})) for output in figure.outputs]
    assert "image/png" in set().union(*types)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of nbgrader with every assignment handed out.

    Its folder, and its programming interface.
    """
    pytest.importorskip(
        "nbgrader", reason="assignments are graded by nbgrader: pip install '.[assignments]'"
    )
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    folder = tmp_path_factory.mktemp("course")
    for path in PATHS:
        (folder / "source" / path.stem).mkdir(parents=True)
        shutil.copy(path, folder / "source" / path.stem)
    config = Config(
        {"CourseDirectory": {"root": str(folder)}, "ExecutePreprocessor": {"timeout": 600}}
    )
    api = NbGraderAPI(CourseDirectory(config=config), config=config)
    with pytest.MonkeyPatch.context() as patch:  # nbgrader looks for alembic on the path
        patch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)
        for path in PATHS:
            done = api.generate_assignment(path.stem)
            assert done["success"], done["log"]
        yield folder, api


def read_released(course, name):
    """The notebook of an assignment as students get it."""
    folder, _ = course
    return nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)


def test_students_see_no_solution_no_hidden_test_and_no_guidance(course, path, cells):
    released = read_released(course, path.stem)
    text = "".join(cell.source for cell in released.cells)
    for name, cell in marked(cells).items():
        released_source = marked(released.cells)[name].source
        if name.endswith("-answer"):
            assert re.search(r"YOUR (CODE|ANSWER) HERE", released_source)
            secret = cell.source.split("### BEGIN SOLUTION")[-1].split("### END SOLUTION")[0]
        elif name.endswith("-test"):
            secret = cell.source.split("### BEGIN HIDDEN TESTS")[1].split("### END HIDDEN TESTS")[0]
        else:
            assert released_source == cell.source
            continue
        assert secret.strip()
        assert secret.strip() not in text


def hand_in(course, student, written):
    """Hand in the released notebook with these answers; the points of its tests by question."""
    folder, api = course
    notebook = read_released(course, GRADED)
    for name, answer in written.items():
        marked(notebook.cells)[name].source = answer
    target = folder / "submitted" / student / GRADED
    target.mkdir(parents=True)
    nbformat.write(notebook, target / f"{GRADED}.ipynb")
    done = api.autograde(GRADED, student)
    assert done["success"], done["log"]
    points = {}
    with api.gradebook as book:
        for name in WRONG:
            grade = book.find_grade(id_of_test(name), GRADED, GRADED, student)
            points[name] = grade.auto_score
    return points


@pytest.mark.slow
def test_right_answers_get_all_points_and_answers_that_pass_what_students_see_get_none(course):
    cells = nbformat.read(FOLDER / f"{GRADED}.ipynb", as_version=4).cells
    solutions = marked(cells, solution=True, grade=False)
    right = {name: cell.source for name, cell in solutions.items()}
    assert set(right) == set(WRONG)
    tests = marked(cells)
    points = {name: tests[id_of_test(name)].metadata.nbgrader.points for name in WRONG}
    assert hand_in(course, "ada", right) == points
    assert hand_in(course, "bob", WRONG) == dict.fromkeys(WRONG, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_pass_what_students_see(course, name):
    released_cells = marked(read_released(course, GRADED).cells)
    namespace = {}
    exec(released_cells["setup"].source, namespace)
    exec(WRONG[name], namespace)
    exec(released_cells[id_of_test(name)].source, namespace)
