import { BadRequestException, Body, Controller, Get, Post } from '@nestjs/common'
import { type Auth, CurrentAuth, RequireKey } from 'latchkey/nest'
import type { User } from './users.ts'

const projects = [{ name: 'analytical engine', addedBy: 'u_1' }]

/** Keys only. A handler without a requirement uses its controller's. */
@Controller('projects')
@RequireKey({ permissions: { projects: ['read'] } })
export class ProjectsController {
  @Get()
  list() {
    return { projects }
  }

  @Post()
  @RequireKey({ permissions: { projects: ['write'] }, cost: 2 })
  add(@Body() body: { name?: unknown } | undefined, @CurrentAuth() auth: Auth<User>) {
    if (auth.method !== 'apikey') throw new Error('This route needs its guard')
    const name = body?.name
    if (typeof name !== 'string' || name.trim() === '' || name.length > 100) {
      throw new BadRequestException('Expected JSON like {"name":"difference engine"}')
    }
    const project = { name: name.trim(), addedBy: auth.user.id }
    projects.push(project)
    return project
  }
}
