"""Output of studies: progress bars, tables, pictures, and files of results."""

from experiments.report._files import (
    append_row as append_row,
    append_rows as append_rows,
    locked as locked,
    make_folder as make_folder,
    versions as versions,
    write_atomically as write_atomically,
    write_config as write_config,
    writes as writes,
)
from experiments.report._progress import Progress as Progress
from experiments.report._published import (
    Published as Published,
    show_beside as show_beside,
)
from experiments.report._scores import (
    bits as bits,
    confusion as confusion,
    draw_confusion as draw_confusion,
    f1 as f1,
    percent as percent,
    show_confusion as show_confusion,
    wilson as wilson,
)
from experiments.report._studies import (
    Result as Result,
    save_picture as save_picture,
    show_table as show_table,
)
from experiments.report._tables import (
    mean_sd as mean_sd,
    say_where as say_where,
    wide_console as wide_console,
    WIDTH as WIDTH,
)
