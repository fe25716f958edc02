import stringWidth from 'string-width'
import { escapeText } from './escape-text.ts'

export interface Column {
  readonly title: string
  readonly align?: 'right'
  /** Whether its cells may be cut where the terminal is too narrow. */
  readonly mayShrink?: boolean
  /** Colours a cell. */
  paint?(text: string): string
}

export interface TableStyle {
  /** The most columns of a line. */
  readonly width: number
  paintTitle(text: string): string
}

const GAP = '  '
const NARROWEST = 8

/** A table for people, without its last line break. Cells are escaped here. */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  style: TableStyle,
): string {
  const cells = rows.map((row) => row.map(escapeText))
  const widths = fitWidths(
    columns,
    columns.map(({ title }, i) =>
      Math.max(stringWidth(title), ...cells.map((row) => stringWidth(row[i] ?? ''))),
    ),
    style.width,
  )
  const lineOf = (row: readonly string[], paint: (text: string, column: Column) => string) =>
    columns
      .map((column, i) => {
        const width = widths[i] as number
        const text = cut(row[i] ?? '', width)
        const padding = ' '.repeat(width - stringWidth(text))
        const painted = paint(text, column)
        return column.align === 'right' ? padding + painted : painted + padding
      })
      .join(GAP)
      .trimEnd()
  const head = lineOf(
    columns.map(({ title }) => title),
    style.paintTitle,
  )
  return [head, ...cells.map((row) => lineOf(row, (text, { paint }) => paint?.(text) ?? text))].join('\n')
}

/** Members of one thing below each other, without a last line break. */
export function renderCard(
  members: readonly (readonly [string, string])[],
  paintName: (name: string) => string,
): string {
  const width = Math.max(...members.map(([name]) => name.length))
  return members
    .map(([name, value]) => `${paintName(name.padEnd(width))}${GAP}${escapeText(value)}`.trimEnd())
    .join('\n')
}

/** Takes from the widest columns that may shrink until a line fits. */
function fitWidths(columns: readonly Column[], widths: number[], width: number): readonly number[] {
  const fitted = [...widths]
  const total = () => fitted.reduce((sum, one) => sum + one, 0) + GAP.length * (fitted.length - 1)
  while (total() > width) {
    const shrinkable = fitted.map((one, i) => (columns[i]?.mayShrink && one > NARROWEST ? one : 0))
    const widest = Math.max(...shrinkable)
    if (widest === 0) break
    fitted[shrinkable.indexOf(widest)] = widest - 1
  }
  return fitted
}

/** The beginning of a text that fits, with `…` for the rest. */
function cut(text: string, width: number): string {
  if (stringWidth(text) <= width) return text
  let kept = ''
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (stringWidth(kept + segment) > width - 1) break
    kept += segment
  }
  return `${kept}…`
}
