"""Output of studies: progress bars, tables, pictures, pages, and files of results."""

from experiments.report._blocks import Block as Block, recording as recording
from experiments.report._conclusions import (
    against as against,
    best_of as best_of,
    Interval as Interval,
    interval as interval,
    listed as listed,
    verdict as verdict,
)
from experiments.report._descriptions import describe as describe
from experiments.report._figures import (
    label_ends as label_ends,
    legend_below as legend_below,
    log_ticks as log_ticks,
    number as number,
    panels as panels,
    plain as plain,
)
from experiments.report._files import (
    append_row as append_row,
    append_rows as append_rows,
    clear as clear,
    locked as locked,
    make_folder as make_folder,
    versions as versions,
    write_atomically as write_atomically,
    write_config as write_config,
    writes as writes,
)
from experiments.report._html import command as command, write_page as write_page
from experiments.report._page import (
    conclude as conclude,
    explain as explain,
    heading as heading,
    say as say,
    slug as slug,
)
from experiments.report._progress import log as log, Progress as Progress
from experiments.report._published import (
    Published as Published,
    show_beside as show_beside,
)
from experiments.report._scores import (
    bits as bits,
    confusion as confusion,
    draw_confusion as draw_confusion,
    f1 as f1,
    holm as holm,
    percent as percent,
    show_confusion as show_confusion,
    wilson as wilson,
)
from experiments.report._studies import (
    Result as Result,
    save_picture as save_picture,
    save_pictures as save_pictures,
    show_file as show_file,
    show_table as show_table,
)
from experiments.report._styles import (
    cell_style as cell_style,
    COLOURS as COLOURS,
    kind_colour as kind_colour,
    rule_style as rule_style,
    rule_styles as rule_styles,
    shade as shade,
    update_style as update_style,
    window as window,
)
from experiments.report._tables import (
    how_to_continue as how_to_continue,
    mean_sd as mean_sd,
    say_where as say_where,
    wide_console as wide_console,
    WIDTH as WIDTH,
)
