import { expect, it } from 'vitest'
import { frozenReleases } from '../support/golden/releases.ts'
import { startProgram } from '../support/program.ts'

const releases = frozenReleases()
const latest = releases.at(-1) as string

it('the frozen releases are not made again, nor before later ones, which hold only what differs', async () => {
  const programs = [latest, '0.0.1'].map((version) =>
    startProgram(['test/support/golden/freeze.ts', version]),
  )
  expect(await Promise.all(programs.map((program) => program.ended()))).toEqual([1, 1])
  expect(programs.map(({ stderr }) => stderr)).toEqual([
    `test/golden/${latest} is there already: what was released does not change.\n`,
    `test/golden/${releases[0]} holds what differs from the releases before it: freeze in their order.\n`,
  ])
  expect(frozenReleases()).toEqual(releases)
})
