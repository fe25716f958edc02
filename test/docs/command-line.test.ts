import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { EXIT } from '../../lib/cli/exit-codes.ts'
import type { CliIo } from '../../lib/cli/io.ts'
import { Output } from '../../lib/cli/output.ts'
import { createProgram } from '../../lib/cli/program.ts'
import { addSettings } from '../../lib/cli/settings.ts'
import { codeIn, readTable } from '../support/markdown.ts'

const guide = readFileSync(new URL('../../docs/command-line.md', import.meta.url), 'utf8')
const io = { stdout: process.stdout, stderr: process.stderr, env: {} } as unknown as CliIo
const { program } = createProgram(io, new Output(io, false))
const optionsOf = (command: Command) => command.options.map(({ long }) => long as string)

describe('the guide to the command line', () => {
  it('lists every command with its arguments and options', () => {
    const settings = optionsOf(addSettings(program.createCommand('settings')))
    const documented = readTable(guide, 'command').map(([usage = '', , options = '']) => [
      codeIn(usage)[0],
      [...codeIn(options), ...(options.includes('the settings') ? settings : [])].sort(),
    ])
    const commands = program.commands.map((command) => {
      const words = command.registeredArguments.map((argument) =>
        argument.required ? `<${argument.name()}>` : `[${argument.name()}]`,
      )
      return [[command.name(), ...words].join(' '), optionsOf(command).sort()]
    })
    expect(documented).toEqual(commands)
  })

  it('lists every setting of a key, and what every command takes', () => {
    const settings = readTable(guide, 'setting').map(([option = '']) => codeIn(option)[0])
    expect(settings).toEqual(optionsOf(addSettings(program.createCommand('settings'))))
    for (const option of optionsOf(program).filter((name) => name !== '--version'))
      expect(guide).toContain(`\`${option}`)
  })

  it('lists every exit code', () => {
    const codes = readTable(guide, 'exit code').map(([code]) => Number(code))
    expect(codes).toEqual(Object.values(EXIT))
  })
})
