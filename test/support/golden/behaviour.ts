import { isDeepStrictEqual } from 'node:util'
import { compareVersions, type FrozenBehaviour, frozenFile, frozenReleases, readFrozen } from './releases.ts'

/** How a release differs from the one before: what its folder holds of its behaviour. */
export interface BehaviourChanges {
  /** Rows that are new, or other ones than before: `behaviour.json`. */
  readonly rows: FrozenBehaviour
  /** By section the rows that are gone: `removed.json`, absent where there are none. */
  readonly removed: Readonly<Record<string, readonly string[]>>
}

/** All that a release did: its own rows, and those of the releases before that it has left as they were. */
export function readBehaviour(release: string): FrozenBehaviour {
  return frozenReleases()
    .filter((other) => compareVersions(other, release) <= 0)
    .map(readBehaviourChanges)
    .reduce(changeBehaviour, {})
}

/** All that the release before this version did; nothing before the first one. */
export function readBehaviourBefore(version: string): FrozenBehaviour {
  const before = frozenReleases().findLast((other) => compareVersions(other, version) < 0)
  return before === undefined ? {} : readBehaviour(before)
}

export function readBehaviourChanges(release: string): BehaviourChanges {
  return {
    rows: readFrozen(release, 'behaviour.json'),
    removed: frozenFile(release, 'removed.json') === null ? {} : readFrozen(release, 'removed.json'),
  }
}

/** What has to be stored of a release, so that no row is stored twice. */
export function findBehaviourChanges(before: FrozenBehaviour, after: FrozenBehaviour): BehaviourChanges {
  return {
    rows: bySection(after, (section, [row, promise]) => {
      const isThere = Object.hasOwn(before[section] ?? {}, row)
      return !isThere || !isDeepStrictEqual(before[section]?.[row], promise)
    }),
    removed: Object.fromEntries(
      Object.entries(bySection(before, (section, [row]) => !Object.hasOwn(after[section] ?? {}, row))).map(
        ([section, rows]) => [section, Object.keys(rows)],
      ),
    ),
  }
}

export function changeBehaviour(
  before: FrozenBehaviour,
  { rows, removed }: BehaviourChanges,
): FrozenBehaviour {
  const sections = new Set([...Object.keys(before), ...Object.keys(rows)])
  const all = Object.fromEntries(
    [...sections].map((section) => [section, { ...before[section], ...rows[section] }]),
  )
  return bySection(all, (section, [row]) => !removed[section]?.includes(row))
}

/** The rows that are wanted; a section without any is left out. */
function bySection(
  behaviour: FrozenBehaviour,
  isWanted: (section: string, entry: readonly [row: string, promise: unknown]) => boolean,
): FrozenBehaviour {
  const sections = Object.entries(behaviour).map(([section, rows]) => {
    const wanted = Object.entries(rows).filter((entry) => isWanted(section, entry))
    return [section, Object.fromEntries(wanted)] as const
  })
  return Object.fromEntries(sections.filter(([, rows]) => Object.keys(rows).length > 0))
}
