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

PATHS = sorted((ROOT / "docs" / "assignments" / "instructor").glob("*.ipynb"))
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


def read(path):
    return nbformat.read(path, as_version=4)


def for_students(path):
    """An assignment without what nbgrader takes out; a test compares it with nbgrader's own."""
    notebook = read(path)
    for cell in notebook.cells:
        marks = cell.metadata.nbgrader
        cell.source = re.sub(
            r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION$",
            r"\1# YOUR CODE HERE\n\1raise NotImplementedError",
            cell.source,
            flags=re.M | re.S,
        )
        cell.source = re.sub(
            r"^ *### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS$",
            "",
            cell.source,
            flags=re.M | re.S,
        ).rstrip("\n")
        if cell.cell_type == "markdown" and marks.solution:
            cell.source = "YOUR ANSWER HERE"
    return notebook


@pytest.fixture
def cells(path):
    return for_students(path).cells


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


def test_every_function_is_asked_for_and_checked_in_the_open(cells):
    for name, function in answers(cells).items():
        assert "raise NotImplementedError" in marked(cells)[name].source
        check = marked(cells)[id_of_test(name)].source
        assert f"{function}(" in check, name
        assert "assert" in check, name


def test_students_find_no_solution_no_hidden_test_and_no_guidance(cells):
    for cell in cells:
        for secret in ("BEGIN SOLUTION", "HIDDEN TESTS", "What to look for"):
            assert secret not in cell.source
        if cell.metadata.nbgrader.solution:
            assert "YOUR CODE HERE" in cell.source or cell.source == "YOUR ANSWER HERE"


def test_students_may_change_their_answers_only(cells):
    for cell in cells:
        marks = cell.metadata.nbgrader
        assert marks.locked != marks.solution


@pytest.mark.slow
def test_without_answers_every_check_fails_and_nothing_else_does():
    notebooks = {path: for_students(path) for path in PATHS}
    execute_in_one_kernel(notebooks.values())
    for path, notebook in notebooks.items():
        checks = [marked(notebook.cells)[id_of_test(name)] for name in answers(notebook.cells)]
        failed = [source for source, _ in errors(notebook)]
        assert failed == [check.source for check in checks], path.stem


@pytest.fixture(scope="module")
def instructor():
    """Assignments with solutions and hidden tests: name -> path."""
    return {path.stem: path for path in PATHS}


def test_every_assignment_has_solutions_and_hidden_tests(instructor):
    for path in instructor.values():
        cells = read(path).cells
        for name, function in answers(cells).items():
            assert "### BEGIN SOLUTION" in marked(cells)[name].source
            _, hidden = marked(cells)[id_of_test(name)].source.split("### BEGIN HIDDEN TESTS")
            assert f"{function}(" in hidden, name
            assert "assert" in hidden, name


@pytest.mark.slow
def test_solutions_pass_and_the_figure_is_drawn(instructor):
    notebooks = [read(path) for path in instructor.values()]
    execute_in_one_kernel(notebooks)
    for notebook in notebooks:
        assert not errors(notebook)
        figure = marked(notebook.cells, grade=False, locked=True)["figure"]
        types = [set(output.get("data", {})) for output in figure.outputs]
        assert "image/png" in set().union(*types)


@pytest.fixture(scope="module")
def course(tmp_path_factory, instructor):
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
    for name, path in instructor.items():
        (folder / "source" / name).mkdir(parents=True)
        shutil.copy(path, folder / "source" / name)
    config = Config(
        {"CourseDirectory": {"root": str(folder)}, "ExecutePreprocessor": {"timeout": 600}}
    )
    api = NbGraderAPI(CourseDirectory(config=config), config=config)
    with pytest.MonkeyPatch.context() as patch:  # nbgrader looks for alembic on the path
        patch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)
        for name in instructor:
            done = api.generate_assignment(name)
            assert done["success"], done["log"]
        yield folder, api


def read_released(course, name):
    """The notebook of an assignment as students get it."""
    folder, _ = course
    return nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)


def test_what_is_tested_here_is_what_nbgrader_hands_out(course, path, cells):
    released = read_released(course, path.stem).cells
    assert [cell.source for cell in cells] == [cell.source for cell in released]
    assert [cell.metadata for cell in cells] == [cell.metadata for cell in released]


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
def test_right_answers_get_all_points_and_answers_that_pass_what_students_see_get_none(
    course, instructor
):
    cells = nbformat.read(instructor[GRADED], as_version=4).cells
    solutions = marked(cells, solution=True, grade=False)
    right = {name: cell.source for name, cell in solutions.items()}
    assert set(right) == set(WRONG)
    tests = marked(cells)
    points = {name: tests[id_of_test(name)].metadata.nbgrader.points for name in WRONG}
    assert hand_in(course, "ada", right) == points
    assert hand_in(course, "bob", WRONG) == dict.fromkeys(WRONG, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_pass_what_students_see(name):
    cells = marked(for_students(PATHS[0].with_name(f"{GRADED}.ipynb")).cells)
    namespace = {}
    exec(cells["setup"].source, namespace)
    exec(WRONG[name], namespace)
    exec(cells[id_of_test(name)].source, namespace)
